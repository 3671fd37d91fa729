"""Workers that die, hang or go away under a request: told, restarted, and never silent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.fakes import (
    Served,
    alive,
    ask,
    eventually,
    everything,
    kernel,
    question,
    spawned,
    statuses,
    until,
)

from aiplayground.context import ServiceContext
from aiplayground.errors import FailureClass, ServiceFailed, ServiceNotAvailable
from aiplayground.events import ServiceInfoUpdate, WebServiceExit
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.types import ChatChunk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def count(tmp_path: Path) -> Path:
    return tmp_path / "count"


def running(k: Kernel, restarts: int) -> bool:
    """Whether the primary worker runs again after so many restarts, and the service with it."""
    info = k.service("served")
    return info.runtime == "running" and info.workers[0].restarts == restarts


async def into(chunks: list[ChatChunk], answer: AsyncIterator[ChatChunk]) -> None:
    async for chunk in answer:
        chunks.append(chunk)  # noqa: PERF401  # what came before an error counts


async def test_a_killed_worker_is_told_and_comes_back(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}")) as k:
        exits = k.subscribe(WebServiceExit, snapshot=False)
        states = k.subscribe(ServiceInfoUpdate)
        await k.start("served")
        for number in (1, 2):
            os.kill(spawned(count)[-1], signal.SIGKILL)
            event = await until(exits, WebServiceExit)
            assert isinstance(event, WebServiceExit)
            assert (event.service, event.worker, event.exit_code) == ("served", "main", -9)
            assert "SIGKILL" in event.message
            await eventually(partial(running, k, number))
        assert len(set(spawned(count))) == 3
        assert await ask(k) == "word word word "
        assert k.service("served").error is None
    seen = statuses(await everything(states), "served")
    assert seen[:6] == ["Installed", "Starting", "Running", "Starting", "Running", "Starting"]


async def test_the_death_of_a_guard_is_its_workers(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}")) as k:
        guard = (await k.start("served")).workers[0].pid
        (program,) = spawned(count)
        assert guard is not None
        assert guard != program
        os.kill(guard, signal.SIGKILL)
        await eventually(lambda: running(k, 1))
        assert not alive(program)


async def test_a_worker_killed_in_mid_stream_is_an_error_and_the_next_request_works(
    tmp_path: Path, count: Path
) -> None:
    async with kernel(tmp_path, Served(f"count={count}", "chunks=3")) as k:
        await k.ensure_ready("served", "m")
        answer = k.chat(question())
        assert (await anext(answer)).text == "word "
        os.kill(spawned(count)[-1], signal.SIGKILL)
        rest: list[ChatChunk] = []
        with pytest.raises(ServiceFailed, match="SIGKILL") as caught:
            await into(rest, answer)
        assert all(chunk.finish_reason is None for chunk in rest), "it has no end"
        assert caught.value.failure is FailureClass.CRASH
        assert await ask(k) == "word word word "


async def test_all_requests_under_a_killed_worker_hear_of_it(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}", "chunks=40")) as k:
        await k.ensure_ready("served", "m")
        answers = [k.chat(question()) for _ in range(10)]
        await asyncio.gather(*(anext(each) for each in answers))
        os.kill(spawned(count)[-1], signal.SIGKILL)
        rests = [into([], each) for each in answers]
        results = await asyncio.gather(*rests, return_exceptions=True)
        assert all(isinstance(each, ServiceNotAvailable) for each in results), results


async def test_crashing_too_often_is_failed_until_a_start(tmp_path: Path, count: Path) -> None:
    served = Served(f"count={count}")
    async with kernel(tmp_path, served, settings={"restart": {"limit": 2}}) as k:
        await k.start("served")
        served.options = ()
        for restarts in (1, 2):
            os.kill(spawned(count)[-1], signal.SIGKILL)
            await eventually(partial(running, k, restarts))
        os.kill(spawned(count)[-1], signal.SIGKILL)
        await eventually(lambda: k.service("served").runtime == "failed")
        info = k.service("served")
        assert info.status == "Stopped"
        assert info.error is not None
        assert "SIGKILL" in info.error["message"]
        assert (await k.start("served")).status == "Running"
        assert k.service("served").workers[0].restarts == 0


async def test_a_stopped_process_is_found_hung_and_restarted(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}")) as k:
        exits = k.subscribe(WebServiceExit, snapshot=False)
        await k.start("served")
        os.kill(spawned(count)[-1], signal.SIGSTOP)
        event = await until(exits, WebServiceExit)
        assert isinstance(event, WebServiceExit)
        assert "stopped answering" in event.message
        await eventually(lambda: running(k, 1))
        assert not alive(spawned(count)[0])
        assert await ask(k) == "word word word "


async def test_a_stop_of_a_worker_that_is_being_killed_waits_for_its_end(
    tmp_path: Path, count: Path
) -> None:
    async with kernel(tmp_path, Served(f"count={count}", "stubborn")) as k:
        await k.start("served")
        os.kill(spawned(count)[-1], signal.SIGSTOP)
        await eventually(lambda: k.service("served").workers[0].error is not None)
        await k.stop("served")
        assert not alive(spawned(count)[0])
        assert len(spawned(count)) == 1


async def test_a_hundred_first_requests_start_one_process(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}")) as k:
        answers = await asyncio.gather(*(ask(k) for _ in range(100)))
        assert set(answers) == {"word word word "}
        assert len(spawned(count)) == 1


async def test_a_stop_during_a_slow_start_ends_the_process(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, Served(f"count={count}", "hold")) as k:
        starting = asyncio.ensure_future(k.start("served"))
        await eventually(lambda: spawned(count))
        assert (await k.stop("served")).workers == ()
        with pytest.raises(ServiceNotAvailable, match="was stopped"):
            await starting
        assert not alive(spawned(count)[0])


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, count: Path) -> None:
    settings = {"timeouts": {"stop_grace": 0.1}}
    async with kernel(tmp_path, Served(f"count={count}", "stubborn"), settings=settings) as k:
        await k.start("served")
        await k.stop("served")
        assert not alive(spawned(count)[0])


class TwoWorkers(Served):
    """A primary worker and another one, each with a count of its own."""

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        count = self.launch["count"]
        await ctx.spawn(self.spec_of("main", f"count={count}.main"))
        await ctx.spawn(self.spec_of("extra", f"count={count}.extra", primary=False, model="e"))


@pytest.mark.parametrize("victim", ["main", "extra"])
async def test_a_crash_of_one_worker_leaves_the_other_alone(
    tmp_path: Path, count: Path, victim: str
) -> None:
    counts = {name: Path(f"{count}.{name}") for name in ("main", "extra")}
    other = ({"main", "extra"} - {victim}).pop()
    async with kernel(tmp_path, TwoWorkers(count=count)) as k:
        states = k.subscribe(ServiceInfoUpdate)
        exits = k.subscribe(WebServiceExit, snapshot=False)
        info = await k.start("served")
        assert [each.name for each in info.workers] == ["main", "extra"]
        assert info.base_url == info.workers[0].base_url, "the primary worker gives it"
        assert info.models == ("e",)
        os.kill(spawned(counts[victim])[-1], signal.SIGKILL)
        event = await until(exits, WebServiceExit)
        assert isinstance(event, WebServiceExit)
        assert event.worker == victim
        await eventually(lambda: len(spawned(counts[victim])) == 2)
        await eventually(lambda: all(w.state == "running" for w in k.service("served").workers))
        await eventually(lambda: k.service("served").models == ("e",))
        assert len(spawned(counts[other])) == 1
        assert alive(spawned(counts[other])[0])
    seen = statuses(await everything(states), "served")
    running_again = ["Starting", "Running"] if victim == "main" else []
    assert seen == ["Installed", "Starting", "Running", *running_again, "Stopping", "Stopped"]


async def test_the_log_has_what_the_worker_said(tmp_path: Path) -> None:
    async with kernel(tmp_path, Served("say=hello from the worker")) as k:
        await k.start("served")
        lines = [(line.source, line.text) for line in k.log("served").tail()]
        assert ("main", "hello from the worker") in lines
