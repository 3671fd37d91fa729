"""Running a hook step by step, to see how long each step holds the event loop."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any

BLOCKED_AFTER = 0.1
"""Seconds that a hook may hold the event loop before it is reported."""


TURN = 0.01
"""Seconds that a stream may go on without letting the event loop have a turn."""


Blocked = Callable[[float], None]


class Pace:
    """When a stream last let the loop have a turn, in `perf_counter` seconds."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since = perf_counter()


@types.coroutine
def watched(steps: Any, blocked: Blocked, pace: Pace) -> Generator[Any, Any, Any]:
    """Await a coroutine (or what `__await__` returned); tell `blocked` the seconds of a long step.

    A plain generator: this is one layer in the path of every chunk. `pace` is told of a wait.
    """
    began = perf_counter()
    try:
        waiting_for = steps.send(None)
    except StopIteration as done:
        return done.value
    finally:
        if perf_counter() - began > BLOCKED_AFTER:
            blocked(perf_counter() - began)
    result = yield from resumed(steps, waiting_for, blocked)
    pace.since = perf_counter()
    return result


def resumed(steps: Any, waiting_for: Any, blocked: Blocked) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has begun to wait."""
    while True:
        try:
            argument = yield waiting_for
            resume = steps.send
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001  # thrown in by the loop: a cancellation
            argument, resume = error, steps.throw
        began = perf_counter()
        try:
            waiting_for = resume(argument)
        except StopIteration as done:
            return done.value
        finally:
            if perf_counter() - began > BLOCKED_AFTER:
                blocked(perf_counter() - began)


@types.coroutine
def going_on(steps: Any, waiting_for: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine whose first step was made by hand."""
    return (yield from resumed(steps, waiting_for, _unwatched))


def _unwatched(seconds: float) -> None:
    """Tell nobody: whoever made the first step watches."""


class Plain:
    """Gives a bare iterator, as some `__await__` return, the methods of a generator."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def send(self, _: Any) -> Any:
        """Advance; an iterator takes no value."""
        return next(self._iterator)

    def throw(self, error: BaseException) -> Any:
        """Raise in the iterator if it can take it, else here."""
        throw = getattr(self._iterator, "throw", None)
        if throw is None:
            raise error
        return throw(error)

    def close(self) -> None:
        """Close the iterator if it can be closed."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


def steps_of(awaitable: Any) -> Any:
    """Return the steps of any awaitable, with the methods of a generator."""
    if hasattr(awaitable, "send"):
        return awaitable
    steps = awaitable.__await__()
    return steps if hasattr(steps, "send") else Plain(steps)
