"""A clock that jumps: waits of an hour end at once, in the right order.

    @virtual_time
    async def test_an_idle_model_is_unloaded() -> None:
        await asyncio.sleep(600)

Time stands still while anything can happen, and while a thread of the loop is at work; then it
jumps to the next timer. Real processes and sockets have no part in it: what waits for one of those
with a deadline sees the deadline pass at once.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THREAD_TURN = 0.01


class _Selector(selectors.DefaultSelector):
    """Asks for events without waiting, and moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0
        self.at_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self.at_work:
            return super().select(_THREAD_TURN)
        if timeout is None:
            return super().select(None)  # nothing is planned: only the outside can go on
        self.offset += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, which begins at 0 (the wall clock: at `epoch`)."""

    def __init__(self, epoch: float | None = None) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)
        self._epoch = time.time() if epoch is None else epoch

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._jumping.offset

    def wall_time(self) -> float:
        """Return the virtual epoch seconds."""
        return self._epoch + self._jumping.offset

    def sleep_machine(self, seconds: float) -> None:
        """Move the wall clock alone, as the sleep of a laptop does."""
        self._epoch += seconds

    def run_in_executor(  # type: ignore[override]  # as typed there, for any arguments
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Run in a thread; time stands still meanwhile."""
        self._jumping.at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self._jumping.at_work -= 1


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run a coroutine function on a loop of its own with a virtual clock; makes it a plain one."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(test(*args, **kwargs))

    # Else a test runner would look through the wrapper and see a coroutine function.
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # functions take attributes
    del run.__wrapped__
    return run
