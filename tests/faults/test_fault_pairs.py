"""Faults one by one, two at once, and during shutdown: a defined end, no orphan, leak or hang.

The moments come from a seed, so that a failure can be run again: its id names the faults and it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import (
    PATIENCE,
    Served,
    alive,
    ask,
    eventually,
    kernel,
    nothing_leaks,
    question,
    spawned,
)

from aiplayground._logs import ServiceLog
from aiplayground.context import ServiceContext
from aiplayground.errors import AIPlaygroundError
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.timeout(120),
]

SEED = 20
PAIRS = 16
"""How many pairs the normal run takes; the full one takes all."""

SETTINGS: dict[str, Any] = {
    "timeouts": {
        "start": 20.0, "stop_grace": 0.3, "answer": 1.5, "drain": 0.2, "shutdown": 8.0,
        "health": 0.5, "hook": 5.0,
    },
    "restart": {"limit": 2},
    "liveness": {"interval": 0.1, "limit": 0.6},
}  # fmt: skip
SETTLED = {"stopped", "running", "failed"}


class Blocking(Served):
    """May hold the event loop in its `start` hook."""

    blocks = False

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        if self.blocks:
            time.sleep(0.2)
        await ctx.spawn(self.spec_of("main", primary=True, **self.launch))


@dataclass
class Scene:
    """A kernel with one backend, the pids that appeared, and the seeded moments."""

    kernel: Kernel
    backend: Blocking
    count: Path
    rng: random.Random
    streaming: asyncio.Event = field(default_factory=asyncio.Event)

    async def moment(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.25))

    async def worker(self) -> int | None:
        """Return the newest worker's pid once an answer streams; None if none ever does."""
        try:
            async with asyncio.timeout(1.5):
                await self.streaming.wait()
        except TimeoutError:
            return None
        return spawned(self.count)[-1]

    async def send(self, number: int) -> None:
        pid = await self.worker()
        await self.moment()
        if pid is not None and alive(pid):
            os.kill(pid, number)


@dataclass(frozen=True)
class Fault:
    """What goes wrong: options of the worker, what the plugin does, and what happens to it."""

    options: Sequence[str] = ()
    act: Callable[[Scene], Awaitable[object]] | None = None
    blocks: bool = False
    port_taken: bool = False


async def double_start(scene: Scene) -> None:
    outcomes = await asyncio.gather(
        *(scene.kernel.start("served") for _ in range(2)), return_exceptions=True
    )
    check(outcomes)


async def stop_during_start(scene: Scene) -> None:
    starting = asyncio.ensure_future(scene.kernel.start("served"))
    await scene.moment()
    check(await asyncio.gather(scene.kernel.stop("served"), return_exceptions=True))
    check(await asyncio.gather(starting, return_exceptions=True))


FAULTS: dict[str, Fault] = {
    "double start": Fault(act=double_start),
    "stop during start": Fault(["chatter=3"], act=stop_during_start),
    "killed in mid-stream": Fault(act=lambda scene: scene.send(signal.SIGKILL)),
    "ignored SIGTERM": Fault(["stubborn"]),
    "grandchild holds the pipes": Fault(["grandchild={count}"]),
    "hang": Fault(act=lambda scene: scene.send(signal.SIGSTOP)),
    "slow start": Fault(["hold"]),
    "exit during start": Fault(["exit=3"]),
    "garbage on stdout": Fault(["garbage"]),
    "fixed port taken": Fault(port_taken=True),
    "hook blocks the loop": Fault(blocks=True),
    "half-open stream": Fault(["stall=1"]),
    "crash at byte N": Fault(["cut=180"]),
}


def check(outcomes: Sequence[object]) -> None:
    """Each outcome is a success or an error with one of the documented codes."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, AIPlaygroundError), repr(outcome)
            assert outcome.code in (-1, -2, -3, -4, -5)
            assert outcome.message


async def traffic(scene: Scene) -> None:
    """Ask, and ask again: what a user does who sees an error."""
    for _ in range(2):
        async for _ in scene.kernel.chat(question()):
            scene.streaming.set()


@contextmanager
def setting(tmp_path: Path, names: Sequence[str]) -> Iterator[tuple[Blocking, dict[str, Any]]]:
    """Return the backend and the kernel's settings with these faults in place."""
    faults = [FAULTS[name] for name in names]
    count = tmp_path / "count"
    options = [f"count={count}", "chunks=6", *(o for fault in faults for o in fault.options)]
    backend = Blocking(*(option.format(count=count) for option in options))
    backend.blocks = any(fault.blocks for fault in faults)
    if "slow start" in names:
        backend.launch = {"start_timeout": 0.8}
    settings = dict(SETTINGS)
    with socket.socket() as listener:
        if any(fault.port_taken for fault in faults):
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            settings["services"] = {"served": {"port": listener.getsockname()[1]}}
        yield backend, settings


def acts(scene: Scene, names: Sequence[str]) -> list[Awaitable[object]]:
    started = [FAULTS[name].act for name in names]
    return [act(scene) for act in started if act is not None]


async def outcomes(*work: Awaitable[object]) -> Sequence[object]:
    """Return how everything ended; nothing may hang."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*work, return_exceptions=True)


def orphans(count: Path) -> list[int]:
    return [pid for pid in spawned(count) if alive(pid)]


def complaints(log: ServiceLog) -> list[str]:
    """What the service's own task could not handle: a defect of the kernel."""
    return [line.text for line in log.tail() if "could not handle" in line.text]


async def play(tmp_path: Path, names: Sequence[str], seed: str) -> None:
    """Let the faults happen to a kernel in use, then mend them: it must serve again."""
    count = tmp_path / "count"
    with setting(tmp_path, names) as (backend, settings):
        async with kernel(tmp_path, backend, settings=settings) as k:
            scene = Scene(k, backend, count, random.Random(seed))
            check(await outcomes(traffic(scene), traffic(scene), *acts(scene, names)))
            await eventually(lambda: k.service("served").runtime in SETTLED)
            assert complaints(k.log("served")) == []
            await outcomes(k.stop("served"))
            assert k.service("served").runtime == "stopped"
            await eventually(lambda: not orphans(count))
            if "fixed port taken" in names:
                return  # a setting, which only another kernel can have otherwise
            backend.options, backend.blocks, backend.launch = (f"count={count}",), False, {}
            assert await ask(k) == "word word word "
    assert not orphans(count)


async def shut_down(tmp_path: Path, names: Sequence[str], seed: str, during: str) -> None:
    """Let the faults happen while the kernel goes down: during a start, or an answer."""
    count = tmp_path / "count"
    with setting(tmp_path, names) as (backend, settings):
        k = kernel(tmp_path, backend, settings=settings)
        await k.open()
        log = k.log("served")
        scene = Scene(k, backend, count, random.Random(seed))
        users = [asyncio.ensure_future(traffic(scene)) for _ in range(2)]
        injected = [asyncio.ensure_future(act) for act in acts(scene, names)]
        if during == "answer":
            await scene.worker()
        await scene.moment()
        (closed,) = await outcomes(k.close())
        assert closed is None, closed
        check(await outcomes(*users, *injected))
        assert not orphans(count), "after the kernel said that it is down"
        assert complaints(log) == []


@pytest.mark.parametrize("name", FAULTS)
async def test_one_fault(tmp_path: Path, name: str) -> None:
    with nothing_leaks():
        await play(tmp_path, [name], f"{SEED} {name}")


@pytest.mark.parametrize("during", ["start", "answer"])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_during_shutdown(tmp_path: Path, name: str, during: str) -> None:
    with nothing_leaks():
        await shut_down(tmp_path, [name], f"{SEED} {name}", during)


def pairs() -> list[Any]:
    """Return all pairs; those that the normal run leaves out are marked."""
    every = list(itertools.combinations(FAULTS, 2))
    chosen = set(random.Random(SEED).sample(every, PAIRS))
    marks = {False: [pytest.mark.full], True: []}
    return [
        pytest.param(pair, id=" and ".join(pair), marks=marks[pair in chosen]) for pair in every
    ]


@pytest.mark.parametrize("names", pairs())
async def test_two_faults_at_once(tmp_path: Path, names: Sequence[str]) -> None:
    with nothing_leaks():
        await play(tmp_path, names, f"{SEED} {names}")


@pytest.mark.full
@pytest.mark.parametrize("during", ["start", "answer"])
@pytest.mark.parametrize("names", pairs())
async def test_two_faults_during_shutdown(
    tmp_path: Path, names: Sequence[str], during: str
) -> None:
    with nothing_leaks():
        await shut_down(tmp_path, names, f"{SEED} {names}", during)
