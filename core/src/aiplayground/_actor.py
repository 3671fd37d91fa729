"""A task that handles one message at a time: what gives a service's state its single writer.

Callers post a message and await its outcome. Every message is handled without an await, so that
nothing can come between an outcome and the state that follows from it. What takes time runs in
jobs, which end in another message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .errors import AIPlaygroundError, PluginError, ServiceNotAvailable

Waiter = asyncio.Future[None]


class Waiters:
    """Callers that wait for the same outcome."""

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiter: Waiter) -> None:
        """Let one more caller wait."""
        self._waiting.append(waiter)

    def settle(self, error: BaseException | None = None) -> None:
        """Tell all of them how it ended."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            settle(waiter, error)


class Actor:
    """The inbox of one service, and the task that reads it."""

    def __init__(self, name: str, logger: logging.Logger) -> None:
        self.name = name
        self.closed = False
        """Whether only what ends something is accepted."""
        self.task: asyncio.Task[None] | None = None
        self._logger = logger
        self._inbox: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._asking: set[Waiter] = set()
        self._groups: list[Waiters] = []

    def open(self) -> None:
        """Begin to take messages."""
        self.task = asyncio.create_task(self._run(), name=f"service {self.name}")

    async def _run(self) -> None:
        while True:
            handle = await self._inbox.get()
            try:
                handle()
            except Exception as error:
                # A defect of ours must not end the writer: whoever waits would wait for ever.
                self._logger.exception("The service's task could not handle a message.")
                self._fail_all(error)

    @property
    def idle(self) -> bool:
        """Whether every message has been read."""
        return self._inbox.empty()

    def waiters(self) -> Waiters:
        """Make a group of callers; it is emptied when a message could not be handled."""
        self._groups.append(Waiters())
        return self._groups[-1]

    def post(self, handler: Callable[..., None], *args: Any) -> None:
        """Have a message handled, after those that came before it."""
        self._inbox.put_nowait(partial(handler, *args))

    async def ask(self, handler: Callable[..., None], *args: Any) -> None:
        """Post a message whose handler gets a waiter, and wait for what becomes of that.

        Raises `ServiceNotAvailable` once the actor is closed.
        """
        if self.closed or self.task is None:
            raise self.shut_down()
        await self.ask_to_end(handler, *args)

    async def ask_to_end(self, handler: Callable[..., None], *args: Any) -> None:
        """Do as `ask`, with a message that is accepted when the actor is closed, too."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._asking.add(waiter)
        waiter.add_done_callback(self._asking.discard)
        self.post(handler, waiter, *args)
        await waiter

    def begin(
        self, work: Coroutine[Any, Any, None], then: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        """Begin a job; `then` is posted with it when it has ended."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: self.post(then, done))
        return task

    def shut_down(self) -> ServiceNotAvailable:
        """Return the error for those who come too late."""
        return ServiceNotAvailable(f"{self.name}: the kernel is shut down or shutting down.")

    def abandon(self) -> None:
        """Tell everyone who still waits that the service is shut down."""
        for waiter in list(self._asking):
            settle(waiter, self.shut_down())

    def _fail_all(self, error: Exception) -> None:
        failure = PluginError(f"{self.name}: {type(error).__name__}: {error}")
        for waiter in list(self._asking):
            settle(waiter, failure)
        for group in self._groups:
            group.settle(failure)


def settle(waiter: Waiter, error: BaseException | None = None) -> None:
    """Tell a caller how it ended, if it still waits."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


def outcome(job: asyncio.Task[None]) -> AIPlaygroundError | None:
    """Return what a job failed with, as an error of ours."""
    if job.cancelled():
        return ServiceNotAvailable("The operation was cancelled.")
    error = job.exception()
    if error is None or isinstance(error, AIPlaygroundError):
        return error
    return PluginError(f"{type(error).__name__}: {error}")
