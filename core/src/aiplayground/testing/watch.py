"""What can be seen of a backend's hooks from around them: leaks, output, changes, held loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from aiplayground.errors import AIPlaygroundError
from aiplayground.events import LoopBlocked
from aiplayground.specs import Capability
from aiplayground.types import EmbedRequest

if TYPE_CHECKING:
    from .lab import Lab

CYCLES = 2
"""Starts and stops that are compared with the first."""

_TURNS = 20


@dataclass(frozen=True, slots=True)
class Growth:
    """What there is more of after each start and stop, by name."""

    tasks: list[str]
    threads: list[str]
    descriptors: list[str]
    children: list[str]


@dataclass(slots=True)
class Held:
    """What this process holds now."""

    tasks: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    children: Counter[str]

    @classmethod
    def now(cls) -> Held:
        """Look."""
        gc.collect()
        this = psutil.Process()
        # The loop's own thread pool stays with the loop: its threads are for anybody.
        threads = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
        return cls(
            tasks=Counter(_name_of(task) for task in asyncio.all_tasks()),
            threads=Counter(_plain(each.name) for each in threads),
            descriptors=Counter(descriptors()),
            children=Counter(_command(each) for each in this.children(recursive=True)),
        )

    def more_than(self, before: Held) -> Growth:
        """Return what has been added, as names."""
        return Growth(
            sorted((self.tasks - before.tasks).elements()),
            sorted((self.threads - before.threads).elements()),
            sorted((self.descriptors - before.descriptors).elements()),
            sorted((self.children - before.children).elements()),
        )


def descriptors() -> list[str]:
    """Return what the descriptors of this process stand for, numbers of sockets left out."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return [each.path for each in psutil.Process().open_files() if ".log" not in each.path]
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # the one of this very listing
            found.append(str(path.readlink()).split(":[")[0])
    # Log files are opened by their writer's thread, whenever it comes to the first line.
    return [each for each in found if not each.startswith("/proc/") and ".log" not in each]


def _name_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", None) or task.get_name())


def _plain(name: str) -> str:
    return name.rstrip("0123456789")


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:120] or process.name()
    return "gone"


async def growth(lab: Lab) -> Growth:
    """Start and stop; return what there is more of each time."""
    other = await lab.other(gated=False)
    await _cycle(other)
    before = await _settled(other)
    for _ in range(CYCLES):
        await _cycle(other)
    after = await _settled(other)
    return after.more_than(before)


async def _cycle(lab: Lab) -> None:
    await lab.start()
    await lab.stop()


async def _settled(lab: Lab) -> Held:
    """Close what the client keeps for the next request, let the loop have its turns, and look."""
    await lab.kernel.forget_connections()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return Held.now()


@dataclass(slots=True)
class Tour:
    """What was seen while the hooks were called once each. `blocked`: seconds by hook."""

    printed: str = ""
    changed: list[str] = field(default_factory=list)
    unhandled: list[str] = field(default_factory=list)
    blocked: dict[str, float] = field(default_factory=dict)


async def tour(lab: Lab) -> Tour:
    """Call the hooks once each, on a kernel of their own, and watch."""
    seen = Tour()
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.unhandled.append(_described(context)))
    before = _globals() | lab.memo["surroundings"]
    try:
        with _captured() as output:
            other = await lab.other()
            watching = asyncio.ensure_future(_watch(other, seen))
            await _walk(other)
            await other.close()
            await watching
            gc.collect()
            await asyncio.sleep(0)
        seen.printed = output()
    finally:
        loop.set_exception_handler(handler)
    after = _globals() | surroundings()
    seen.changed = [name for name, value in before.items() if after[name] != value]
    return seen


async def _walk(lab: Lab) -> None:
    """Ask for everything once; what fails is the business of other rules."""
    await lab.start()
    kernel, capabilities = lab.kernel, lab.facts.spec.capabilities
    async with lab.within("calling the hooks once each"):
        await kernel.health(lab.service)
        await kernel.models()
        with contextlib.suppress(AIPlaygroundError, AssertionError):
            if Capability.CHAT in capabilities:
                async with aclosing(kernel.chat(await lab.question())) as chunks:
                    async for _ in chunks:
                        pass
        with contextlib.suppress(AIPlaygroundError, AssertionError):
            if Capability.EMBEDDING in capabilities:
                await kernel.embed(EmbedRequest(model=await lab.model(), input=["Hello"]))
    await lab.stop()


async def _watch(lab: Lab, seen: Tour) -> None:
    async for event in lab.kernel.subscribe(LoopBlocked, snapshot=False):
        if isinstance(event, LoopBlocked):
            seen.blocked[event.hook] = max(event.seconds, seen.blocked.get(event.hook, 0))


def _described(context: dict[str, Any]) -> str:
    error = context.get("exception")
    what = f" ({type(error).__name__}: {error})" if error is not None else ""
    return f"{context.get('message', 'an error')}{what}"


def _globals() -> dict[str, Any]:
    root = logging.getLogger()
    return {
        "signal handlers": {
            number: signal.getsignal(number)
            for number in signal.valid_signals()
            if number not in (signal.SIGKILL, signal.SIGSTOP)
        }
        if sys.platform != "win32"
        else {},
        "the root logger": (list(root.handlers), root.level),
    }


def surroundings() -> dict[str, Any]:
    """Return what no hook may ever have changed: compared with how it was before the first one."""
    return {
        "the working directory": Path.cwd(),
        "environment variables": {
            key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")
        },
    }


@contextlib.contextmanager
def _captured() -> Iterator[Any]:
    """Catch what is printed, by Python and past it; yields a function that returns the text."""
    python = io.StringIO()
    with tempfile.TemporaryFile() as below:
        kept = {number: os.dup(number) for number in (1, 2)}
        sys.stdout.flush()
        sys.stderr.flush()

        def text() -> str:
            return python.getvalue() + found.decode("utf-8", "replace")

        found = b""
        try:
            for number in kept:
                os.dup2(below.fileno(), number)
            with contextlib.redirect_stdout(python), contextlib.redirect_stderr(python):
                yield text
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
            below.seek(0)
            found = below.read()
