"""The queues of the backends: so many requests at a time, others wait their turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from .errors import TooManyRequests
from .policy import Priority, Ticket, next_up, position, retry_after

OnWait: TypeAlias = Callable[[Callable[[], int] | None], None]

SMOOTHING = 0.1
"""Weight of the newest request in the mean time that one takes."""


class Place:
    """A turn in a queue; a class, because every request takes one."""

    __slots__ = ("_began", "_client", "_on_wait", "_priority", "_queue")

    def __init__(
        self, queue: Queue, client: str, priority: Priority, on_wait: OnWait | None
    ) -> None:
        self._queue = queue
        self._client = client
        self._priority = priority
        self._on_wait = on_wait

    async def __aenter__(self) -> None:
        await self._queue.enter(self._client, self._priority, self._on_wait)
        self._began = time.monotonic()

    async def __aexit__(self, *exc: object) -> None:
        self._queue.leave(self._client, time.monotonic() - self._began)


class Queue:
    """The queue of one backend; decisions are `policy`'s."""

    def __init__(self, service: str, *, active: int, waiting: int) -> None:
        self._service = service
        self._limits = (active, waiting)
        self._active: Counter[str] = Counter()
        self._count = 0
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._number = 0
        self._mean = 1.0

    @property
    def active(self) -> int:
        """Requests in progress."""
        return self._count

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def position(self, ticket: Ticket) -> int:
        """Return where a ticket stands; 1: it is next."""
        others = [each for each in self._waiting if each is not ticket]
        return position(ticket, others, self._active)

    def place(self, client: str, priority: Priority, on_wait: OnWait | None = None) -> Place:
        """Wait for a turn and hold it; leaving, also by cancellation, gives it to the next.

        `on_wait` is called with a function that tells the position while this waits, then with
        None. Raises `TooManyRequests` if too many wait already.
        """
        return Place(self, client, priority, on_wait)

    async def enter(self, client: str, priority: Priority, on_wait: OnWait | None) -> None:
        """Wait for a turn: that is `place`'s to call."""
        if self._waiting or self._count >= self._limits[0]:
            await self._wait(client, priority, on_wait)
        else:
            self._enter(client)

    def leave(self, client: str, seconds: float) -> None:
        """Give up a turn that took so long."""
        self._mean += SMOOTHING * (seconds - self._mean)
        self._leave(client)

    async def _wait(self, client: str, priority: Priority, on_wait: OnWait | None) -> None:
        if len(self._waiting) >= self._limits[1]:
            raise self._full()
        self._number += 1
        ticket = Ticket(self._number, client, priority, time.monotonic())
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        if on_wait is not None:
            on_wait(partial(self.position, ticket))
        try:
            await turn
        except BaseException:
            self._waiting.pop(ticket, None)
            if turn.done() and not turn.cancelled():
                self._leave(client)  # its turn had come in the very moment
            raise
        finally:
            if on_wait is not None:
                on_wait(None)

    def _enter(self, client: str) -> None:
        self._count += 1
        self._active[client] += 1

    def _leave(self, client: str) -> None:
        self._count -= 1
        self._active[client] -= 1
        if not self._active[client]:
            del self._active[client]
        self._call_next()

    def _call_next(self) -> None:
        # Counted here and not when the waiter wakes: nobody can slip in between.
        while self._count < self._limits[0]:
            ticket = next_up(tuple(self._waiting), self._active, time.monotonic())
            if ticket is None:
                return
            turn = self._waiting.pop(ticket)
            if not turn.done():
                self._enter(ticket.client)
                turn.set_result(None)

    def _full(self) -> TooManyRequests:
        seconds = retry_after(len(self._waiting), self._limits[0], self._mean)
        return TooManyRequests(
            f"{self._service} has {len(self._waiting)} requests waiting, which is as many as may. "
            f"Try again in {seconds} s, or raise the setting 'waiting' of ai-backend.",
            seconds,
            service=self._service,
            waiting=len(self._waiting),
        )


class Queues:
    """A queue for each backend, made when it is needed."""

    def __init__(self, *, active: int, waiting: int) -> None:
        self._active, self._waiting = active, waiting
        self.by_service: dict[str, Queue] = {}

    def of(self, service: str) -> Queue:
        """Return a backend's queue."""
        if service not in self.by_service:
            self.by_service[service] = Queue(service, active=self._active, waiting=self._waiting)
        return self.by_service[service]
