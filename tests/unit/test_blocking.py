"""The kernel without `async`: the same answers and errors, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from pathlib import Path

import pytest
from tests.fakes import QUICK, Fake, question

from aiplayground.blocking import BlockingKernel
from aiplayground.errors import ModelNotFound, ServiceNotAvailable
from aiplayground.states import BackendStatus


def blocking(home: Path, *plugins: Fake) -> BlockingKernel:
    return BlockingKernel(
        home=home,
        plugins={plugin.spec.name: plugin for plugin in plugins},
        discover=False,
        settings=QUICK,
        environ={},
    )


def test_a_whole_answer(tmp_path: Path) -> None:
    fake = Fake()
    with blocking(tmp_path, fake) as kernel:
        assert [each.text for each in kernel.chat(question())] == ["a", "b", "c", ""]
        assert [model.name for model in kernel.models()] == ["m"]
        assert kernel.default_model() == "m"
        assert kernel.start("fake").status is BackendStatus.RUNNING
        assert kernel.stop("fake").status is BackendStatus.STOPPED
        assert kernel.set_up("fake").set_up
        assert [service.name for service in kernel.services()] == ["fake"]
        assert kernel.call(kernel.kernel.health, "fake") is None
    assert fake.closed == 1


def test_leaving_the_loop_early_stops_the_engine(tmp_path: Path) -> None:
    fake = Fake()
    with blocking(tmp_path, fake) as kernel:
        answer = kernel.chat(question())
        assert next(answer).text == "a"
        answer.close()  # type: ignore[attr-defined]  # a generator, which is an Iterator
        assert fake.closed == 1


def test_an_answer_may_be_thrown_away_after_the_end(tmp_path: Path) -> None:
    fake = Fake()
    with blocking(tmp_path, fake) as kernel:
        answer = kernel.chat(question())
        next(answer)
    del answer
    gc.collect()
    assert fake.closed == 1


def test_errors_arrive_as_they_are(tmp_path: Path) -> None:
    with blocking(tmp_path, Fake()) as kernel:
        with pytest.raises(ModelNotFound):
            list(kernel.chat(question("nope")))
        with pytest.raises(ServiceNotAvailable):
            kernel.start("nope")


def test_any_thread_may_ask(tmp_path: Path) -> None:
    with blocking(tmp_path, Fake()) as kernel:
        answers: list[str] = []

        def ask() -> None:
            answers.append("".join(each.text for each in kernel.chat(question())))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == ["abc"] * 8


def test_outside_the_block_it_says_how_it_is_used(tmp_path: Path) -> None:
    kernel = blocking(tmp_path, Fake())
    with pytest.raises(RuntimeError, match="with BlockingKernel"):
        kernel.services()
    with kernel:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        kernel.services()


def test_an_interrupt_ends_the_answer_and_the_kernel_goes_on(tmp_path: Path) -> None:
    fake = Fake(words=["a"])
    with blocking(tmp_path, fake) as kernel:
        fake.answering = kernel.call(_event)
        answer = kernel.chat(question())
        assert next(answer).text == "a"
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(answer)
        timer.join()
        assert fake.closed == 1
        fake.answering = None
        assert "".join(each.text for each in kernel.chat(question())) == "a"


async def _event() -> asyncio.Event:
    return asyncio.Event()


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with blocking(tmp_path, Fake()) as kernel:
        list(kernel.chat(question()))
    assert set(threading.enumerate()) <= before
