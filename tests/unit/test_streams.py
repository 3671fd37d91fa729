"""Answers in progress: aborted, cancelled, too slow, drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tests.fakes import collect

from aiplayground._streams import Streams
from aiplayground.errors import FailureClass, ServiceFailed, ServiceNotAvailable

LONG = 60.0


def stopped() -> ServiceNotAvailable:
    return ServiceNotAvailable("stopped")


class Source:
    """Yields one item, then hangs; what it does when it is cancelled is a parameter."""

    def __init__(self, on_cancel: Any = None) -> None:
        self.on_cancel = on_cancel
        self.closed = False

    async def __call__(self) -> AsyncGenerator[Any, None]:
        try:
            yield "first"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if isinstance(self.on_cancel, Exception):
                    raise self.on_cancel from None
                if self.on_cancel is None:
                    raise
            yield self.on_cancel
        finally:
            self.closed = True


async def consume(streams: Streams, source: Source, patience: float = LONG) -> list[Any]:
    return await collect(streams.run(source(), patience))


async def hanging(streams: Streams, source: Source) -> asyncio.Task[list[Any]]:
    """Return a consumer that waits for the second item."""
    task = asyncio.ensure_future(consume(streams, source))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(streams) == 1
    return task


@pytest.mark.parametrize("on_cancel", [None, ValueError("clean-up failed"), "swallowed"])
async def test_an_abort_is_an_error_whatever_the_source_makes_of_it(on_cancel: Any) -> None:
    streams, source = Streams(), Source(on_cancel)
    task = await hanging(streams, source)
    streams.abort(stopped)
    with pytest.raises(ServiceNotAvailable, match="stopped"):
        await task
    assert task.cancelling() == 0, "the consumer was not cancelled"
    assert source.closed
    assert len(streams) == 0


async def test_a_real_cancellation_stays_one() -> None:
    streams, source = Streams(), Source()
    task = await hanging(streams, source)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed
    assert len(streams) == 0


@pytest.mark.parametrize("first", ["abort", "cancel"])
async def test_a_cancellation_beside_an_abort_stays_one(first: str) -> None:
    streams, source = Streams(), Source()
    task = await hanging(streams, source)
    acts: dict[str, Callable[[], object]] = {
        "abort": lambda: streams.abort(stopped),
        "cancel": task.cancel,
    }
    acts.pop(first)()
    acts.popitem()[1]()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed


async def test_an_abort_inside_the_consumers_own_time_out_is_no_time_out() -> None:
    streams, source = Streams(), Source()

    async def patient() -> list[Any]:
        async with asyncio.timeout(LONG):
            return await consume(streams, source)

    task = asyncio.ensure_future(patient())
    for _ in range(5):
        await asyncio.sleep(0)
    streams.abort(stopped)
    with pytest.raises(ServiceNotAvailable):
        await task


async def test_a_consumer_that_cleans_up_after_a_cancellation_can_be_aborted_too() -> None:
    streams = Streams()

    async def cleans_up() -> list[Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await consume(streams, Source())
        raise AssertionError("it is cancelled")

    task = asyncio.ensure_future(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    streams.abort(stopped)
    with pytest.raises(ServiceNotAvailable):
        await task


async def test_an_abort_between_two_items_ends_the_answer_at_the_next() -> None:
    streams, source = Streams(), Source()
    answer = streams.run(source(), LONG)
    assert await anext(answer) == "first"
    streams.abort(stopped)
    with pytest.raises(ServiceNotAvailable):
        await anext(answer)
    assert source.closed


async def test_each_answer_gets_an_error_of_its_own() -> None:
    streams = Streams()
    tasks = [asyncio.ensure_future(consume(streams, Source())) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    streams.abort(stopped)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in errors} == {ServiceNotAvailable}
    assert len({id(each) for each in errors}) == 20


async def test_an_engine_that_sends_nothing_is_given_up() -> None:
    streams, source = Streams(), Source()
    with pytest.raises(ServiceFailed, match="sent nothing") as caught:
        await consume(streams, source, patience=0.05)
    assert caught.value.failure is FailureClass.TIMEOUT
    assert source.closed


async def test_a_time_out_of_somebody_elses_is_not_taken_for_ours() -> None:
    async def times_out() -> AsyncGenerator[Any, None]:
        raise TimeoutError("theirs")
        yield

    with pytest.raises(TimeoutError, match="theirs"):
        await collect(Streams().run(times_out(), LONG))


async def test_drained_waits_for_the_last_answer() -> None:
    streams = Streams()
    await streams.drained()
    sources = [Source(), Source()]
    answers = [streams.run(each(), LONG) for each in sources]
    for answer in answers:
        await anext(answer)
    drained = asyncio.ensure_future(streams.drained())
    await answers[0].aclose()
    await asyncio.sleep(0)
    assert not drained.done()
    await answers[1].aclose()
    await drained
    assert all(source.closed for source in sources)


async def test_an_answer_that_ends_well_is_whole() -> None:
    async def three() -> AsyncGenerator[int, None]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    streams = Streams()
    assert await collect(streams.run(three(), LONG)) == [0, 1, 2]
    assert len(streams) == 0
