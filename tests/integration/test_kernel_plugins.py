"""Plugins that raise degrade themselves alone; middleware wraps what passes through a kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, ask, everything, kernel, question

from aiplayground.errors import InvalidParameters, PluginError, ServiceNotAvailable
from aiplayground.events import LoopBlocked
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.middleware import LifecycleCall, Middleware, Proceed, RequestCall
from aiplayground.specs import Capability, Device, Health
from aiplayground.types import Embeddings, EmbedRequest, ModelInfo


async def broken(ctx: Any) -> Any:
    raise ZeroDivisionError("broken")


async def broken_stream(ctx: Any) -> AsyncIterator[Any]:
    raise ZeroDivisionError("broken")
    yield


def broken_plain() -> Any:
    raise ZeroDivisionError("broken")


class Breaks(Fake):
    """A chat backend of which one hook raises."""

    def __init__(self, hook: str, function: Any) -> None:
        super().__init__("breaks", models=["fragile"])
        setattr(self, hook, hookimpl(function))


async def start(k: Kernel) -> None:
    await k.start("breaks")


async def chat(k: Kernel) -> None:
    await ask(k, "fragile")


async def set_up(k: Kernel) -> None:
    await k.set_up("breaks")


async def uninstall(k: Kernel) -> None:
    await k.uninstall("breaks")


async def health(k: Kernel) -> None:
    await k.health("breaks")


async def unload(k: Kernel) -> None:
    await k.ensure_ready("breaks", "fragile")
    await k.unload("breaks", "fragile")


ASKED = [
    ("start", broken, start, "failed"),
    ("health", broken, start, "failed"),
    ("health", broken, health, "stopped"),
    ("chat", broken_stream, chat, "running"),
    ("load_model", broken, chat, "running"),
    ("unload_model", broken, unload, "running"),
    ("setup", broken_stream, set_up, "stopped"),
    ("uninstall", broken, uninstall, "stopped"),
]


@pytest.mark.parametrize(("hook", "function", "act", "runtime"), ASKED)
async def test_a_hook_that_raises_degrades_its_own_service_alone(
    tmp_path: Path, hook: str, function: Any, act: Callable[[Kernel], Awaitable[None]], runtime: str
) -> None:
    async with kernel(tmp_path, Breaks(hook, function), Fake()) as k:
        with pytest.raises(PluginError, match=f"breaks: hook '{hook}' raised ZeroDivisionError"):
            await act(k)
        assert k.service("breaks").runtime == runtime
        assert await ask(k, "m") == "abc"
        assert k.service("fake").status == "Running"
        log = "\n".join(line.text for line in k.log("breaks").tail())
        assert "ZeroDivisionError: broken" in log
        assert "Traceback" in log, "the message promises it"


async def test_a_stop_hook_that_raises_still_stops(tmp_path: Path) -> None:
    async with kernel(tmp_path, Breaks("stop", broken)) as k:
        await k.start("breaks")
        info = await k.stop("breaks")
        assert info.status == "Stopped"
        assert info.error is not None
        assert (await k.start("breaks")).error is None


async def test_a_version_hook_that_raises_shows_as_broken(tmp_path: Path) -> None:
    async with kernel(tmp_path, Breaks("installed_version", broken), Fake()) as k:
        info = k.service("breaks")
        assert (info.status, info.installation) == ("NotInstalled", "broken")
        assert info.error is not None
        assert "ZeroDivisionError" in info.error["message"]
        with pytest.raises(ServiceNotAvailable, match=r"not set up.*aipg setup breaks"):
            await k.start("breaks")
        assert [model.name for model in await k.models()] == ["m"]


async def none_at_all(ctx: Any) -> Any:
    return None


@pytest.mark.parametrize("function", [broken, none_at_all])
async def test_a_list_hook_that_fails_hides_no_other_models(tmp_path: Path, function: Any) -> None:
    async with kernel(tmp_path, Breaks("list_models", function), Fake()) as k:
        assert [model.name for model in await k.models()] == ["m"]
        assert await ask(k, "m") == "abc"
        assert any("cannot be listed" in line.text for line in k.log("breaks").tail())


async def test_a_health_hook_that_returns_nothing_is_named(tmp_path: Path) -> None:
    async with kernel(tmp_path, Breaks("health", none_at_all)) as k:
        with pytest.raises(PluginError, match="breaks: hook 'health' returned NoneType"):
            await k.start("breaks")


@pytest.mark.parametrize("returned", [broken_plain, lambda: 7, lambda: None, lambda: "text"])
@pytest.mark.parametrize("hook", ["model_files", "register_middleware", "detect_devices"])
async def test_what_is_asked_of_all_leaves_out_who_fails(
    tmp_path: Path, hook: str, returned: Any
) -> None:
    class HasDevice(Fake):
        @hookimpl
        def detect_devices(self) -> list[Device]:
            return [Device(id="cpu", name="CPU", kind="CPU")]

    async with kernel(tmp_path, Breaks(hook, returned), HasDevice()) as k:
        assert [device.id for device in await k.devices()] == ["cpu"]
        assert await ask(k, "m") == await ask(k, "fragile") == "abc"
        assert any("breaks" in line.text for line in k.log().tail())


async def test_a_service_that_is_not_healthy_does_not_run(tmp_path: Path) -> None:
    async def ill(ctx: Any) -> Health:
        return Health(ok=False, detail="no GPU")

    async with kernel(tmp_path, Breaks("health", ill)) as k:
        with pytest.raises(ServiceNotAvailable, match="came up, but is not healthy: no GPU"):
            await k.start("breaks")


async def test_a_hook_that_holds_the_loop_is_an_event_and_a_line_in_the_log(tmp_path: Path) -> None:
    async def blocks(ctx: Any) -> None:
        time.sleep(0.15)

    async with kernel(tmp_path, Breaks("start", blocks)) as k:
        events = k.subscribe(LoopBlocked, snapshot=False)
        await k.start("breaks")
        assert any("held the event loop" in line.text for line in k.log().tail())
    (event,) = await everything(events)
    assert isinstance(event, LoopBlocked)
    assert (event.plugin, event.hook) == ("breaks", "start")


async def test_a_hook_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def hangs(ctx: Any) -> Any:
        await asyncio.Event().wait()

    settings = {"timeouts": {"hook": 0.05}}
    async with kernel(tmp_path, Breaks("list_models", hangs), Fake(), settings=settings) as k:
        assert await ask(k, "m") == "abc"
        text = "\n".join(line.text for line in k.log("breaks").tail())
        assert "its hook 'list_models' did not end within" in text


class Wraps(Fake, Middleware):
    """A backend that also brings a middleware: itself."""

    def __init__(self) -> None:
        super().__init__(capabilities=frozenset({Capability.CHAT, Capability.EMBEDDING}))
        self.notes: list[str] = []

    @hookimpl
    def register_middleware(self) -> list[object]:
        return [self]

    @hookimpl
    async def embed(self, request: EmbedRequest) -> Embeddings:
        return Embeddings(model=request.model, vectors=[[1.0]])

    async def lifecycle(self, call: LifecycleCall, proceed: Callable[[], Awaitable[None]]) -> None:
        self.notes.append(f"{call.operation} {call.model or call.service}")
        await proceed()

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        self.notes.append(f"{call.hook} {call.request.model}")
        if call.request.model == "secret":
            raise InvalidParameters("not for you")
        async with aclosing(proceed(call.request)) as answer:
            async for item in answer:
                yield item

    def chunk(self, call: RequestCall, item: Any) -> Any:
        if getattr(item, "text", "") == "b":
            return None
        return (
            item.model_copy(update={"text": item.text.upper()}) if hasattr(item, "text") else item
        )


async def test_middleware_sees_lifecycle_requests_and_chunks(tmp_path: Path) -> None:
    wraps = Wraps()
    async with kernel(tmp_path, wraps) as k:
        assert await ask(k) == "AC"
        assert (await k.embed(EmbedRequest(model="m", input=["x"]))).vectors == [[1.0]]
        await k.unload("fake", "m")
        await k.stop("fake")
    assert wraps.notes == [
        "start fake",
        "load_model m",
        "chat m",
        "embed m",
        "unload_model m",
        "stop fake",
    ]


async def test_closing_through_middleware_closes_the_engine_at_once(tmp_path: Path) -> None:
    wraps = Wraps()
    async with kernel(tmp_path, wraps) as k:
        answer = k.chat(question())
        await anext(answer)
        await answer.aclose()
        assert wraps.closed == 1


async def test_a_middleware_may_refuse(tmp_path: Path) -> None:
    wraps = Wraps()
    wraps.models = ["secret"]
    async with kernel(tmp_path, wraps) as k:
        with pytest.raises(InvalidParameters, match="not for you"):
            await ask(k, "secret")
        assert "chat secret" not in wraps.calls


async def test_a_middleware_that_raises_is_named_and_the_kernel_closes(tmp_path: Path) -> None:
    class Raises(Fake):
        @hookimpl
        def register_middleware(self) -> list[object]:
            return [self]

        async def lifecycle(self, call: LifecycleCall, proceed: Any) -> None:
            raise ZeroDivisionError

    async with kernel(tmp_path, Raises()) as k:
        with pytest.raises(PluginError, match=r"Raises.lifecycle' raised ZeroDivisionError"):
            await k.start("fake")


async def test_the_models_of_a_list_hook_are_its_services(tmp_path: Path) -> None:
    async def lies(ctx: Any) -> list[ModelInfo]:
        return [ModelInfo(name="fragile", service="fake")]

    async with kernel(tmp_path, Breaks("list_models", lies), Fake()) as k:
        listed = {model.name: model.service for model in await k.models()}
        assert listed == {"fragile": "breaks", "m": "fake"}
