"""A plugin that raises, floods, blocks or leaks degrades itself alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, ask, everything, kernel, question

from aiplayground._bus import Overflow
from aiplayground.context import ServiceContext
from aiplayground.errors import PluginError, ServiceFailed
from aiplayground.events import LoopBlocked, ServiceSetUpProgress
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Capability, SetupProgress
from aiplayground.types import ChatChunk, ChatRequest, EmbedRequest


async def broken(ctx: Any) -> Any:
    raise ZeroDivisionError("broken")


async def broken_stream(ctx: Any) -> AsyncIterator[Any]:
    raise ZeroDivisionError("broken")
    yield


class Bad(Fake):
    """A backend of which one hook is replaced."""

    def __init__(self, hook: str = "", function: Any = None, **spec: Any) -> None:
        able = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING})
        super().__init__("bad", models=["fragile"], **{"capabilities": able, **spec})
        if hook:
            setattr(self, hook, hookimpl(function))


async def embed(k: Kernel) -> None:
    await k.embed(EmbedRequest(model="fragile", input=["x"]))


async def complete(k: Kernel) -> None:
    body = {"kind": "completion", "model": "fragile", "prompt": "x"}
    async for _ in k.generate(body):
        pass


@pytest.mark.parametrize(
    ("hook", "function", "act"),
    [("embed", broken, embed), ("generate", broken_stream, complete)],
)
async def test_an_inference_hook_that_raises_is_named(
    tmp_path: Path, hook: str, function: Any, act: Callable[[Kernel], Awaitable[None]]
) -> None:
    async with kernel(tmp_path, Bad(hook, function), Fake()) as k:
        with pytest.raises(PluginError, match=f"bad: hook '{hook}' raised ZeroDivisionError"):
            await act(k)
        assert k.service("bad").runtime == "running"
        assert await ask(k) == "abc"


async def test_an_endpoint_hook_that_raises_is_named(tmp_path: Path) -> None:
    async with kernel(tmp_path, Bad("endpoint", broken, api="openai"), Fake()) as k:
        with pytest.raises(ServiceFailed, match="bad: hook 'endpoint' raised ZeroDivisionError"):
            await k.start("bad")
        assert await ask(k) == "abc"


class RaisesAtRegistration:
    """What pluggy looks at when it looks for hooks raises."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise ZeroDivisionError("not today")


class BackendRaises(Fake):
    @hookimpl
    def backend(self) -> Any:
        raise ZeroDivisionError("who am I")


class StartIsPlain:
    @hookimpl
    def start(self, ctx: Any) -> None:
        """No coroutine."""


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (RaisesAtRegistration(), "registering it raised ZeroDivisionError: not today"),
        (BackendRaises("bad"), "its hook 'backend' raised ZeroDivisionError: who am I"),
        (StartIsPlain(), "hook 'start' must be a coroutine function"),
    ],
    ids=["registration", "backend", "kind"],
)
async def test_a_plugin_that_cannot_be_loaded_leaves_the_others(
    tmp_path: Path, plugin: Any, words: str
) -> None:
    plugins = {"bad": plugin, "fake": Fake()}
    async with Kernel(home=tmp_path, plugins=plugins, discover=False, environ={}) as k:
        (failure,) = k.plugins.failures
        assert (failure.name, words in failure.message) == ("bad", True), failure.message
        assert await ask(k) == "abc"
        assert any(words in line.text for line in k.log().tail())


class FloodsChunks(Bad):
    @hookimpl
    async def chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        while True:
            yield ChatChunk(text="x")


async def test_an_answer_without_end_or_pause_leaves_the_others_their_turn(tmp_path: Path) -> None:
    async with kernel(tmp_path, FloodsChunks(), Fake()) as k:
        read = 0

        async def listen() -> None:
            nonlocal read
            async for _ in k.chat(question("fragile")):
                read += 1

        listening = asyncio.create_task(listen())
        while not read:
            await asyncio.sleep(0)
        assert await ask(k) == "abc"
        listening.cancel()
        await asyncio.wait({listening})
        assert listening.cancelled()


async def test_a_set_up_that_floods_events_leaves_the_others_their_turn(tmp_path: Path) -> None:
    served, count = asyncio.Event(), 0

    async def floods(ctx: Any) -> AsyncIterator[SetupProgress]:
        nonlocal count
        while not served.is_set() or count < 20_000:
            count += 1
            yield SetupProgress(stage="unpack", progress=count % 100)
        yield SetupProgress(stage="unpack", progress=100)

    async with kernel(tmp_path, Bad("setup", floods), Fake()) as k:
        events = k.subscribe(ServiceSetUpProgress, overflow=Overflow.COALESCE, snapshot=False)
        installing = asyncio.create_task(k.set_up("bad"))
        while not count:
            await asyncio.sleep(0)
        assert await ask(k) == "abc", "it is served meanwhile"
        served.set()
        assert (await installing).set_up
    told = await everything(events)
    assert 0 < len(told) < count, "a slow subscriber gets the newest, not all"
    last = told[-1]
    assert isinstance(last, ServiceSetUpProgress)
    assert last.progress == 100


class Leaks(Bad):
    """It leaves tasks: one that hangs and swallows its cancellation once, one that has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[asyncio.Task[None]] = []

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.kept.append(asyncio.create_task(self.hang()))
        failing = asyncio.create_task(self.fail())
        failing.add_done_callback(lambda task: task.exception())

    async def hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def fail(self) -> None:
        raise ZeroDivisionError("in the background")


async def test_a_plugin_that_leaks_tasks_keeps_neither_stop_nor_shutdown_up(tmp_path: Path) -> None:
    leaks = Leaks()
    async with kernel(tmp_path, leaks, Fake()) as k:
        for _ in range(3):
            await k.start("bad")
            assert (await k.stop("bad")).status == "Stopped"
        await k.start("bad")
        assert await ask(k) == "abc"
    assert len(leaks.kept) == 4
    for task in leaks.kept:
        task.cancel()
    await asyncio.wait(leaks.kept)


async def test_a_hook_that_blocks_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    async def blocks(ctx: Any) -> Any:
        time.sleep(0.12)
        return []

    async with kernel(tmp_path, Bad("list_models", blocks), Fake()) as k:
        events = k.subscribe(LoopBlocked, snapshot=False)
        assert await ask(k) == "abc"
    told = await everything(events)
    assert {(each.plugin, each.hook) for each in told if isinstance(each, LoopBlocked)} == {
        ("bad", "list_models")
    }


async def test_a_hook_that_swallows_the_deadline_ends_the_answer_all_the_same(
    tmp_path: Path,
) -> None:
    async def deaf(ctx: Any, request: Any) -> AsyncIterator[ChatChunk]:
        yield ChatChunk(text="a")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield ChatChunk(text="b", finish_reason="stop")

    settings = {"timeouts": {"answer": 0.05}}
    async with kernel(tmp_path, Bad("chat", deaf), settings=settings) as k:
        with pytest.raises(ServiceFailed, match="sent nothing for"):
            await ask(k, "fragile")
