"""Middleware: order, errors, closing at once, and nothing at all when there is none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from tests.fakes import collect

from aiplayground.errors import InvalidParameters, PluginError
from aiplayground.middleware import (
    LifecycleCall,
    Middleware,
    Proceed,
    RequestCall,
    compose_lifecycle,
    compose_request,
)

CALL = RequestCall("svc", "chat", "request")
START = LifecycleCall("svc", "start")


class Engine:
    """The innermost stream: three items, unless it is closed before."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed = 0

    async def __call__(self, request: Any) -> AsyncGenerator[Any, None]:
        self.asked.append(request)
        try:
            for item in (1, 2, 3):
                yield item
        finally:
            self.closed += 1


class Noting(Middleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def lifecycle(self, call: LifecycleCall, proceed: Callable[[], Awaitable[None]]) -> None:
        self.notes.append(f"+{self.name} {call.operation}")
        await proceed()
        self.notes.append(f"-{self.name}")

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        self.notes.append(f"+{self.name} {call.request}")
        async with aclosing(proceed(f"{call.request}{self.name}")) as answer:
            async for item in answer:
                yield item
        self.notes.append(f"-{self.name}")

    def chunk(self, call: RequestCall, item: Any) -> Any:
        return f"{self.name}({item})"


class Untouched(Middleware):
    """Overrides nothing."""


class Bare:
    """Has none of the methods."""


class OnlyChunks:
    """No subclass of anything; drops even items."""

    def chunk(self, call: RequestCall, item: int) -> int | None:
        return None if item % 2 == 0 else item


@pytest.mark.parametrize("chain", [[], [Untouched()], [Bare(), Untouched(), Middleware()]])
def test_it_costs_nothing_where_nobody_looks(chain: list[object]) -> None:
    engine = Engine()

    async def run() -> None: ...

    assert compose_request(chain, CALL, engine) is engine
    assert compose_lifecycle(chain, START, run) is run


async def depth_of(chain: list[object]) -> int:
    """Return how many frames lie between whoever reads an answer and the engine."""
    depths = []

    async def engine(request: Any) -> AsyncGenerator[Any, None]:
        frame, depth = sys._getframe(), 0
        while frame.f_code.co_name != "read" and frame.f_back is not None:
            frame, depth = frame.f_back, depth + 1
        depths.append(depth)
        yield 1

    async def read(answer: AsyncGenerator[Any, None]) -> None:
        assert await collect(answer) == [1]

    await read(compose_request(chain, CALL, engine)("request"))
    return depths[0]


async def test_no_layer_is_added_where_nobody_looks() -> None:
    bare = await depth_of([])
    assert await depth_of([Untouched(), Bare(), Middleware()]) == bare
    assert await depth_of([OnlyChunks()]) > bare


async def test_the_first_is_outermost_for_requests_and_for_chunks() -> None:
    notes: list[str] = []
    engine = Engine()
    chain = [Noting("a", notes), Noting("b", notes)]
    items = await collect(compose_request(chain, CALL, engine)("request"))
    assert items == ["a(b(1))", "a(b(2))", "a(b(3))"]
    assert engine.asked == ["requestab"], "each may change the request"
    assert notes == ["+a request", "+b requesta", "-b", "-a"]


async def test_the_first_is_outermost_for_lifecycle() -> None:
    notes: list[str] = []

    async def run() -> None:
        notes.append("run")

    await compose_lifecycle([Noting("a", notes), Bare(), Noting("b", notes)], START, run)()
    assert notes == ["+a start", "+b start", "run", "-b", "-a"]


async def test_an_item_can_be_dropped() -> None:
    assert await collect(compose_request([OnlyChunks()], CALL, Engine())("r")) == [1, 3]


async def test_chunks_are_told_of_the_request_as_it_was_sent() -> None:
    seen = []

    class Looks:
        def chunk(self, call: RequestCall, item: Any) -> Any:
            seen.append(call.request)
            return item

    await collect(compose_request([Noting("a", []), Looks()], CALL, Engine())("request"))
    assert set(seen) == {"requesta"}


@pytest.mark.parametrize(
    "chain", [[], [OnlyChunks()], [Noting("a", [])], [Noting("a", []), OnlyChunks()]]
)
async def test_closing_the_consumer_closes_the_engine_at_once(chain: list[object]) -> None:
    engine = Engine()
    answer = compose_request(chain, CALL, engine)("r")
    await anext(answer)
    assert engine.closed == 0
    await answer.aclose()
    assert engine.closed == 1


async def test_a_cancelled_consumer_closes_the_engine() -> None:
    closed = asyncio.Event()

    async def hangs(request: Any) -> AsyncGenerator[Any, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    answer = compose_request([Noting("a", [])], CALL, hangs)("r")
    task = asyncio.ensure_future(collect(answer))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_a_middleware_that_forgets_to_close_does_not_keep_the_engine_going() -> None:
    class Forgets:
        async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
            async for item in proceed(call.request):
                yield item

    engine = Engine()
    answer = compose_request([Noting("a", []), Forgets(), OnlyChunks()], CALL, engine)("r")
    await anext(answer)
    await answer.aclose()
    assert engine.closed == 1


async def test_an_error_thrown_through_reaches_every_layer_once() -> None:
    seen = []

    class Catches(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
            try:
                async with aclosing(proceed(call.request)) as answer:
                    async for item in answer:
                        yield item
            except InvalidParameters:
                seen.append(self.name)
                raise

    async def refuses(request: Any) -> AsyncGenerator[Any, None]:
        yield 1
        raise InvalidParameters("no")

    with pytest.raises(InvalidParameters):
        await collect(compose_request([Catches("a"), Catches("b")], CALL, refuses)("r"))
    assert seen == ["b", "a"]


async def test_a_middleware_may_answer_itself_and_the_engine_is_never_asked() -> None:
    class Cached(Middleware):
        async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
            yield "from the cache"

    engine = Engine()
    assert await collect(compose_request([Cached()], CALL, engine)("r")) == ["from the cache"]
    assert engine.asked == []


async def test_a_cancelled_step_is_cancelled_through_every_layer() -> None:
    notes: list[str] = []
    begun = asyncio.Event()

    async def run() -> None:
        begun.set()
        await asyncio.Event().wait()

    class Settles(Middleware):
        async def lifecycle(self, call: LifecycleCall, proceed: Any) -> None:
            try:
                await proceed()
            finally:
                notes.append("settled")

    task = asyncio.ensure_future(compose_lifecycle([Settles(), Settles()], START, run)())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes == ["settled", "settled"]


class Broken:
    async def lifecycle(self, call: LifecycleCall, proceed: Callable[[], Awaitable[None]]) -> None:
        raise ZeroDivisionError("lifecycle")

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        async with aclosing(proceed(call.request)) as answer:
            async for _ in answer:
                raise ZeroDivisionError("request")
        yield None


class BrokenChunk:
    def chunk(self, call: RequestCall, item: Any) -> Any:
        raise ZeroDivisionError("chunk")


@pytest.mark.parametrize("broken", [Broken(), BrokenChunk()])
async def test_an_error_of_a_middleware_names_it_and_closes_the_engine(broken: object) -> None:
    engine = Engine()
    with pytest.raises(
        PluginError, match=rf"{type(broken).__name__}\.\w+' raised ZeroDivisionError"
    ):
        await collect(compose_request([broken], CALL, engine)("r"))
    assert engine.closed == 1


async def test_a_broken_lifecycle_middleware_is_named() -> None:
    async def run() -> None:
        raise AssertionError("it must not be reached")

    with pytest.raises(PluginError, match=r"Broken\.lifecycle"):
        await compose_lifecycle([Broken()], START, run)()


async def test_an_error_of_the_backend_passes_as_it_is() -> None:
    error = InvalidParameters("no")

    async def refuses(request: Any) -> AsyncGenerator[Any, None]:
        yield 1
        raise error

    async def run() -> None:
        raise error

    notes: list[str] = []
    with pytest.raises(InvalidParameters) as caught:
        await collect(compose_request([Noting("a", notes), OnlyChunks()], CALL, refuses)("r"))
    assert caught.value is error
    with pytest.raises(InvalidParameters) as caught:
        await compose_lifecycle([Noting("a", notes)], START, run)()
    assert caught.value is error
