from __future__ import annotations

import asyncio
import os
import signal

import pytest

from aiplayground.cli._app import App
from aiplayground.cli._run import run
from aiplayground.cli._signals import Signals
from aiplayground.cli.exits import Interrupted

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals to itself")


def _handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_work_cleanly(number: int) -> None:
    cleaned: list[str] = []
    before = _handlers()

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    with pytest.raises(Interrupted) as caught:
        run(App(), work)
    assert caught.value.exit_code == 128 + number
    assert cleaned == ["yes"]
    assert _handlers() == before


def test_a_second_signal_does_not_wait_for_the_clean_way() -> None:
    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

    before = _handlers()
    with pytest.raises(KeyboardInterrupt):
        run(App(), work)
    assert _handlers() == before


def test_an_error_after_a_signal_counts_as_the_interruption() -> None:
    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            raise ConnectionError("the engine went away under it")

    with pytest.raises(Interrupted) as caught:
        run(App(), work)
    assert caught.value.exit_code == 143


def test_diverted_ctrl_c_leaves_the_work_alone() -> None:
    app = App()
    heard: list[int] = []

    async def work() -> str:
        assert app.signals is not None
        for _ in range(2):
            came = asyncio.Event()
            with app.signals.divert(came.set):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.wait_for(came.wait(), 5)
            heard.append(1)
        return "done"

    assert run(app, work) == "done"
    assert heard == [1, 1]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        loop = asyncio.new_event_loop()
        with Signals(loop):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        loop.close()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_results_and_errors_pass() -> None:
    async def give() -> int:
        return 7

    async def fail() -> None:
        raise LookupError("x")

    assert run(App(), give) == 7
    with pytest.raises(LookupError):
        run(App(), fail)
