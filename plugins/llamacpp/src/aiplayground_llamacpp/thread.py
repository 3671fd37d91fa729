"""The engine's thread: every native call that is not thread-safe is made here, one by one."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class EngineThread:
    """A thread with a queue of work. It is a daemon: a native call that hangs holds nobody up."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start it; called once."""
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """Whether there is more work than that which is being done."""
        return not self._work.empty()

    def submit(self, work: Callable[[], None]) -> None:
        """Have `work` done after what was submitted before. It must not raise."""
        self._work.put(work)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread and wait for its result.

        Cancelling the wait does not stop the call.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # it is the caller's, not the thread's
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_set, future, result)

        self.submit(work)
        return await future

    def end(self) -> None:
        """Let it end after what was submitted before."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # else an idle thread would keep what its last work refers to


def _set(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
