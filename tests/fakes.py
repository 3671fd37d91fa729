"""Backends that live in the test's own process, and what tests of a kernel have in common."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from aiplayground._bus import Subscription
from aiplayground._logs._files import LogWriter
from aiplayground.context import ServiceContext
from aiplayground.events import Event, ServiceInfoUpdate, Snapshot
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import BackendSpec, Capability, LaunchSpec
from aiplayground.types import ChatChunk, ChatRequest, ModelInfo

PATIENCE = 30.0
"""Seconds after which a test gives up; only a hang reaches it."""

QUICK: dict[str, Any] = {
    "restart": {"base": 0.02, "cap": 0.05, "jitter": 0.0, "limit": 3},
    "liveness": {"interval": 0.1, "limit": 0.5},
    "timeouts": {"stop_grace": 2.0, "drain": 0.2, "start": 20.0, "health": 1.0},
}


class Backend:
    """A backend without an engine. `calls` lists the hooks that were called, in order."""

    def __init__(self, name: str, models: Sequence[str] = ("m",), **spec: Any) -> None:
        self.spec = BackendSpec(
            name=name,
            title=name.title(),
            **{"capabilities": frozenset({Capability.CHAT}), **spec},
        )
        self.models = models
        self.calls: list[str] = []

    @hookimpl
    def backend(self) -> BackendSpec:
        return self.spec

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.calls.append("start")

    @hookimpl
    async def stop(self) -> None:
        self.calls.append("stop")

    @hookimpl
    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(name=name) for name in self.models]


class Fake(Backend):
    """A chat backend in the test's own process; the events hold it at the steps they name."""

    def __init__(
        self,
        name: str = "fake",
        models: Sequence[str] = ("m",),
        words: Sequence[str] = ("a", "b", "c"),
        **spec: Any,
    ) -> None:
        super().__init__(name, models, **spec)
        self.words = words
        self.starting: asyncio.Event | None = None
        self.answering: asyncio.Event | None = None
        self.loading: asyncio.Event | None = None
        self.closed = 0

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.calls.append("start")
        if self.starting is not None:
            await self.starting.wait()

    @hookimpl
    async def load_model(self, model: str) -> None:
        self.calls.append(f"load {model}")
        if self.loading is not None:
            await self.loading.wait()

    @hookimpl
    async def unload_model(self, model: str) -> None:
        self.calls.append(f"unload {model}")

    @hookimpl
    async def chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        self.calls.append(f"chat {request.model}")
        try:
            for word in self.words:
                yield ChatChunk(text=word)
            if self.answering is not None:
                await self.answering.wait()
            yield ChatChunk(finish_reason="stop")
        finally:
            self.closed += 1


def kernel(
    home: Path, *plugins: Any, settings: Mapping[str, Any] | None = None, **options: Any
) -> Kernel:
    """Return a kernel with these plugins alone, and with short waits."""
    named = {
        plugin.spec.name if hasattr(plugin, "spec") else type(plugin).__name__.lower(): plugin
        for plugin in plugins
    }
    merged = {key: {**QUICK.get(key, {}), **(settings or {}).get(key, {})} for key in QUICK}
    merged |= {key: value for key, value in (settings or {}).items() if key not in QUICK}
    return Kernel(home=home, plugins=named, discover=False, settings=merged, environ={}, **options)


def question(model: str = "m", **parameters: Any) -> ChatRequest:
    return ChatRequest.model_validate(
        {"model": model, "messages": [{"role": "user", "content": "Hello"}], **parameters}
    )


async def ask(on: Kernel, model: str = "m", **parameters: Any) -> str:
    """Return the whole answer; it must have ended with a reason."""
    text, reasons = "", []
    async for chunk in on.chat(question(model, **parameters)):
        text += chunk.text
        reasons.append(chunk.finish_reason)
    assert reasons[-1] is not None
    return text


async def until(subscription: Subscription, kind: type[Event], **fields: Any) -> Event:
    """Return the next event of a kind with these fields."""
    async with asyncio.timeout(PATIENCE):
        async for event in subscription:
            if isinstance(event, kind) and all(
                getattr(event, name) == value for name, value in fields.items()
            ):
                return event
    raise AssertionError(f"the subscription ended before a {kind.__name__} came")


async def status(on: Kernel, service: str, wanted: str, *, runtime: bool = False) -> None:
    """Wait until a service has a status; with `runtime`, until its runtime state has that name."""
    subscription = on.subscribe(ServiceInfoUpdate)
    async with subscription, asyncio.timeout(PATIENCE):
        async for event in subscription:
            assert isinstance(event, ServiceInfoUpdate | Snapshot)
            for info in event.services:
                if info.name == service and wanted == (info.runtime if runtime else info.status):
                    return


def statuses(events: Sequence[Event], service: str) -> list[str]:
    """Return the statuses that a service went through, without repetitions."""
    seen: list[str] = []
    for event in events:
        for info in getattr(event, "services", ()):
            if info.name == service and seen[-1:] != [info.status.value]:
                seen.append(info.status.value)
    return seen


async def everything(subscription: Subscription) -> list[Event]:
    """Return what a subscription delivers until it ends."""
    async with asyncio.timeout(PATIENCE):
        return [event async for event in subscription]


async def collect(items: AsyncGenerator[Any, None]) -> list[Any]:
    return [item async for item in items]


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    """No task, thread, descriptor or child is left by the block."""

    def held() -> dict[str, object]:
        gc.collect()
        # Log files are opened by their writer's thread, when it comes to the first line.
        for writer in [each for each in gc.get_objects() if isinstance(each, LogWriter)]:
            assert writer.flush(PATIENCE)
        this = psutil.Process()
        # The loop's own thread pool stays with the loop: its threads are for anybody.
        threads = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
        return {
            "tasks": asyncio.all_tasks(),
            "threads": sorted(each.name for each in threads),
            "descriptors": descriptors(),
            "children": sorted(map(repr, this.children(recursive=True))),
        }

    before = held()
    yield
    after = held()
    changed = [f"{kind}: {before[kind]} -> {after[kind]}" for kind in before]
    assert after == before, "\n".join(changed)


def descriptors() -> list[str]:
    """Return what the descriptors of this process stand for, numbers of sockets left out."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one of this very listing
            found.append(str(path.readlink()).split(":[")[0])
    return sorted(each for each in found if not each.startswith("/proc/"))


SERVER = str(Path(__file__).parent / "faults" / "children" / "server.py")


class Served(Backend):
    """A backend whose worker is a real process: `faults/children/server.py`.

    `options` are the server's; change them between starts. The kernel's defaults talk to it.
    """

    def __init__(self, *options: str, name: str = "served", **launch: Any) -> None:
        super().__init__(name, api="openai")
        self.options = options
        self.launch = launch
        self.argv: list[str] | None = None

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.calls.append("start")
        await ctx.spawn(self.spec_of("main", primary=True, **self.launch))

    def spec_of(self, name: str, *options: str, **launch: Any) -> LaunchSpec:
        argv = [sys.executable, "-I", "-S", SERVER, "{port}", *self.options, *options]
        return LaunchSpec(argv=self.argv or argv, name=name, **launch)


def spawned(count: Path) -> list[int]:
    """Return the process ids that servers with `count=FILE` have noted."""
    return [int(line) for line in count.read_text().split()] if count.exists() else []


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
