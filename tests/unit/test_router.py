"""Dispatch: arguments by name, blame, order, and hooks that hold the loop."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.fakes import collect

from aiplayground._loader import load_plugins
from aiplayground._router import Route, Router
from aiplayground._steps import Pace, Plain, steps_of, watched
from aiplayground.errors import InvalidParameters, PluginError
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec

Report = list[tuple[str, str, float]]


def router(*plugins: object, report: Report | None = None) -> Router:
    blocked: Report = [] if report is None else report
    given = [(f"plugin{index}", each) for index, each in enumerate(plugins)]
    found = load_plugins(given, discover=False)
    assert not found.failures
    return Router(found, lambda *what: blocked.append(what))


class Backend:
    """A backend "svc" with one function for a hook."""

    def __init__(
        self, hook: str = "", function: Any = None, name: str = "svc", **spec: Any
    ) -> None:
        self.spec = BackendSpec(name=name, title="", **spec)
        if hook:
            setattr(self, hook, hookimpl(function))

    @hookimpl
    def backend(self) -> BackendSpec:
        return self.spec


def route(hook: str, function: Callable[..., Any], report: Report | None = None) -> Route:
    found = router(Backend(hook, function), report=report).find("svc", hook)
    assert found is not None
    return found


async def none() -> Any:
    return ()


async def first(ctx: Any) -> Any:
    return (ctx,)


async def second(model: Any) -> Any:
    return (model,)


async def both(ctx: Any, model: Any) -> Any:
    return (ctx, model)


async def swapped(model: Any, ctx: Any) -> Any:
    return (model, ctx)


async def with_own(model: Any, mine: int = 7) -> Any:
    return (model, mine)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (none, ()),
        (first, ("ctx",)),
        (second, ("model",)),
        (both, ("ctx", "model")),
        (swapped, ("model", "ctx")),
        (with_own, ("model", 7)),
    ],
)
async def test_a_hook_gets_the_arguments_that_it_names(function: Any, got: Any) -> None:
    assert await route("load_model", function).call("ctx", "model") == got


async def test_each_service_has_its_own_routes() -> None:
    found = router(Backend("load_model", first, "a"), Backend("load_model", second, "b"))
    a, b = found.find("a", "load_model"), found.find("b", "load_model")
    assert a is not None
    assert b is not None
    assert (await a.call(1, 2), await b.call(1, 2)) == ((1,), (2,))
    assert found.find("a", "embed") is None
    assert list(found.specs) == ["a", "b"]


async def test_the_kernels_defaults_serve_who_speaks_openai_and_the_own_hook_wins() -> None:
    found = router(Backend("health", none, "a", api="openai"), Backend(name="b"))
    for hook in ("chat", "generate", "embed", "list_models", "health"):
        default = found.find("a", hook)
        assert default is not None
        assert default is found.find("a", hook)
        assert (default.plugin == "plugin0") == (hook == "health")
        assert found.find("b", hook) is None
    assert found.find("a", "load_model") is None


async def raises_value_error(ctx: Any) -> None:
    raise ValueError("boom")


async def refuses(ctx: Any) -> None:
    raise InvalidParameters("no")


async def stream_of_errors(ctx: Any) -> AsyncIterator[int]:
    yield 1
    raise ValueError("boom")


async def stream_of_refusals(ctx: Any) -> AsyncIterator[int]:
    yield 1
    raise InvalidParameters("no")


async def run(found: Route) -> Any:
    return await (collect(found.stream("c", "r")) if found.hook == "chat" else found.call("c"))


@pytest.mark.parametrize(
    ("hook", "function"), [("start", raises_value_error), ("chat", stream_of_errors)]
)
async def test_what_is_no_error_of_ours_is_blamed_on_plugin_and_hook(
    hook: str, function: Any
) -> None:
    with pytest.raises(
        PluginError, match=f"plugin0: hook '{hook}' raised ValueError: boom"
    ) as caught:
        await run(route(hook, function))
    assert caught.value.details == {"plugin": "plugin0", "hook": hook, "error": "ValueError"}
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(("hook", "function"), [("start", refuses), ("chat", stream_of_refusals)])
async def test_an_error_of_ours_keeps_its_kind_and_gains_names(hook: str, function: Any) -> None:
    with pytest.raises(InvalidParameters) as caught:
        await run(route(hook, function))
    assert caught.value.details == {"plugin": "plugin0", "hook": hook}
    assert caught.value.__cause__ is not caught.value, "no error is its own cause"


def wrapped(hook: str, returned: Any) -> Any:
    """A function that looks right from outside and returns what it likes."""

    async def coroutine(ctx: Any) -> None: ...

    async def generator(ctx: Any) -> AsyncIterator[int]:
        yield 1

    original: Any = generator if hook == "chat" else coroutine

    @functools.wraps(original)
    def function(ctx: Any) -> Any:
        return returned(original, ctx)

    return function


@pytest.mark.parametrize(
    ("hook", "returned", "words"),
    [
        ("start", lambda original, ctx: 5, "returned int where a coroutine is due"),
        ("start", lambda original, ctx: None, "returned NoneType where a coroutine is due"),
        ("chat", lambda original, ctx: [1], "returned list where an async generator is due"),
        (
            "chat",
            lambda original, ctx: raises_value_error(ctx),
            "returned coroutine where an async",
        ),
    ],
)
async def test_a_wrong_kind_of_answer_is_named(hook: str, returned: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words) as caught:
        await run(route(hook, wrapped(hook, returned)))
    assert caught.value.message.startswith(f"plugin0: hook '{hook}'")


async def test_what_a_wrapper_returns_rightly_is_used() -> None:
    through = wrapped("chat", lambda original, ctx: original(ctx))
    assert await run(route("chat", through)) == [1]
    assert await run(route("start", wrapped("start", lambda original, ctx: original(ctx)))) is None


@pytest.mark.parametrize("error", [ValueError("boom"), InvalidParameters("no")])
def test_a_plain_hook_is_blamed_too(error: Exception) -> None:
    def devices() -> None:
        raise error

    (found,) = router(Backend("detect_devices", devices)).everyone("detect_devices")
    with pytest.raises((PluginError, InvalidParameters)) as caught:
        found.sync()
    assert caught.value.details["plugin"] == "plugin0"
    assert caught.value.details["hook"] == "detect_devices"


async def test_all_are_asked_in_order_but_for_who_asks_to_be_first_or_last() -> None:
    class Says:
        def __init__(self, word: str, **options: Any) -> None:
            self.register_stores = hookimpl(**options)(lambda: {word: ""})

    found = router(
        Says("last", trylast=True),
        Says("one"),
        Says("first", tryfirst=True),
        Says("two"),
        Says("three"),
    )
    answers = [next(iter(each.sync())) for each in found.everyone("register_stores")]
    assert answers == ["first", "one", "two", "three", "last"]


async def test_gathering_isolates_who_fails_and_who_hangs() -> None:
    release = threading.Event()

    def hangs() -> list[Any]:
        release.wait(30)
        return []

    def fails() -> list[Any]:
        raise OSError("driver")

    found = router(
        Backend("detect_devices", lambda: ["gpu"], "a"),
        Backend("detect_devices", fails, "b"),
        Backend("detect_devices", hangs, "c"),
    )
    try:
        answers = dict(await found.gather("detect_devices", 0.2))
    finally:
        release.set()
    assert answers["plugin0"] == ["gpu"]
    assert isinstance(answers["plugin1"], PluginError)
    assert isinstance(answers["plugin2"], TimeoutError)


async def test_closing_a_stream_closes_the_plugins_generator_at_once() -> None:
    closed = []

    async def endless(ctx: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    stream = route("chat", endless).stream("c", "r")
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed == [1]


async def test_an_error_while_closing_is_blamed() -> None:
    async def untidy(ctx: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise OSError("cannot stop")

    stream = route("chat", untidy).stream("c", "r")
    await anext(stream)
    with pytest.raises(PluginError, match="raised OSError: cannot stop"):
        await stream.aclose()


async def test_cancellation_passes_through_and_reaches_the_hook() -> None:
    seen = []

    async def waits(ctx: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def stream(ctx: Any) -> AsyncIterator[int]:
        await waits(ctx)
        yield 1

    for found in (route("start", waits), route("chat", stream)):
        task = asyncio.ensure_future(run(found))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen == ["cancelled"] * 2


async def test_a_hook_that_holds_the_loop_is_reported_and_one_that_waits_is_not() -> None:
    async def blocks(ctx: Any) -> str:
        time.sleep(0.15)
        await asyncio.sleep(0)
        return "done"

    async def stream(ctx: Any) -> AsyncIterator[int]:
        yield 1
        time.sleep(0.15)
        yield 2

    async def waits(ctx: Any) -> None:
        await asyncio.sleep(0.15)

    report: Report = []
    assert await run(route("start", blocks, report)) == "done"
    assert await run(route("chat", stream, report)) == [1, 2]
    await run(route("stop", waits, report))
    assert [each[:2] for each in report] == [("plugin0", "start"), ("plugin0", "chat")]
    assert all(seconds >= 0.1 for _, _, seconds in report)


class Bare:
    """An awaitable whose steps are an iterator with no more than `__next__`."""

    def __init__(self) -> None:
        self.left = 3

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> None:
        self.left -= 1
        if not self.left:
            raise StopIteration("bare")


async def test_any_awaitable_will_do() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 5)
    assert await watched(steps_of(future), lambda _: None, Pace()) == 5
    assert isinstance(steps_of(Bare()), Plain)
    assert await watched(steps_of(Bare()), lambda _: None, Pace()) == "bare"
    with pytest.raises(ZeroDivisionError):
        Plain(Bare()).throw(ZeroDivisionError())
    Plain(Bare()).close()
