"""Workers that crash at the moments between two states, or whose plugin replaces them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.fakes import Served, alive, ask, eventually, everything, kernel, spawned, statuses

from aiplayground._processes import ports
from aiplayground.context import ServiceContext
from aiplayground.errors import FailureClass, ServiceFailed, ServiceNotAvailable
from aiplayground.events import ServiceInfoUpdate
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Health

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def complaints(k: Kernel) -> list[str]:
    """What the service's own task could not handle: a defect of the kernel."""
    return [line.text for line in k.log("served").tail() if "could not handle" in line.text]


async def test_one_that_is_slow_to_start_and_crashes_at_once_is_given_up(tmp_path: Path) -> None:
    """The time that a start takes is no time of stable running."""
    count = tmp_path / "count"
    served = Served(f"count={count}", "chatter=20", "die=0.5")
    settings = {"restart": {"limit": 2, "stable_after": 0.8}}
    async with kernel(tmp_path, served, settings=settings) as k:
        await k.start("served")
        await eventually(lambda: k.service("served").runtime == "failed")
        assert len(spawned(count)) == 3


async def test_one_that_ends_before_it_is_known_to_be_the_one_is_told_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds its port any more: that is an end, not a port taken by somebody else."""

    def dead_when_asked(port: int, processes: list[psutil.Process]) -> bool:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        while any(alive(process.pid) for process in processes):
            time.sleep(0.005)
        return False

    monkeypatch.setattr(ports, "listener_in_tree", dead_when_asked)
    async with kernel(tmp_path, Served()) as k:
        with pytest.raises(ServiceFailed, match=r"main was ended by SIGKILL") as caught:
            await k.start("served")
        assert caught.value.failure is FailureClass.CRASH


class CrashesInStart(Served):
    """Its worker is killed when all is ready but the start has not ended."""

    crashes = 1

    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        if self.crashes and self.calls == ["start"]:
            self.crashes -= 1
            worker = ctx.workers["main"]
            assert worker.info.pid is not None
            os.kill(worker.info.pid, signal.SIGKILL)
            await eventually(lambda: worker.info.restarts or worker.info.state == "failed")
        return Health(ok=True)


@pytest.mark.parametrize("wait", [0.0, 0.5])
async def test_a_crash_just_before_the_end_of_a_start(tmp_path: Path, wait: float) -> None:
    count = tmp_path / "count"
    settings = {"restart": {"base": wait, "cap": wait}}
    async with kernel(tmp_path, CrashesInStart(f"count={count}"), settings=settings) as k:
        states = k.subscribe(ServiceInfoUpdate)
        assert (await k.start("served")).status == "Running"
        assert k.service("served").workers[0].state == "running"
        assert len(spawned(count)) == 2
        assert complaints(k) == []
    seen = statuses(await everything(states), "served")
    assert seen == ["Installed", "Starting", "Running", "Stopping", "Stopped"]


async def test_a_crash_at_the_end_of_a_start_that_is_the_last(tmp_path: Path) -> None:
    async with kernel(tmp_path, CrashesInStart(), settings={"restart": {"limit": 0}}) as k:
        with pytest.raises(ServiceFailed, match="SIGKILL"):
            await k.start("served")
        assert k.service("served").runtime == "failed"
        assert complaints(k) == []
        assert (await k.start("served")).status == "Running"


class Replaces(Served):
    """Loads a model by ending its primary worker and launching another one."""

    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        await ctx.end(ctx.workers["main"])
        await ctx.spawn(self.spec_of("main", model=model))


async def test_a_plugin_may_replace_its_primary_worker(tmp_path: Path) -> None:
    count = tmp_path / "count"
    async with kernel(tmp_path, Replaces(f"count={count}")) as k:
        assert await ask(k) == "word word word "
        first, second = spawned(count)
        assert not alive(first)
        assert alive(second)
        assert k.service("served").status == "Running"
        assert complaints(k) == []
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: len(spawned(count)) == 3)
        assert await ask(k) == "word word word "


class SpawnsInLoad(Served):
    """Loads each model into a worker of its own, which never becomes ready."""

    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        await ctx.spawn(self.spec_of("own", "hold", primary=False, model=model))


@pytest.mark.parametrize("how", ["late", "stopped"])
async def test_a_load_that_is_given_up_ends_its_worker(tmp_path: Path, how: str) -> None:
    count = tmp_path / "count"
    settings = {"timeouts": {"load": 0.3 if how == "late" else 60.0}}
    async with kernel(tmp_path, SpawnsInLoad(f"count={count}"), settings=settings) as k:
        asking = asyncio.ensure_future(ask(k))
        await eventually(lambda: len(spawned(count)) == 2)
        if how == "stopped":
            await k.stop("served")
        with pytest.raises(ServiceNotAvailable):
            await asking
        assert not alive(spawned(count)[1])
        assert "own" not in [worker.name for worker in k.service("served").workers]
