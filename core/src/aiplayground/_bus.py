"""The event bus: publishing never waits, each subscriber has a bounded queue and a policy."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from enum import StrEnum
from typing import Self, TypeVar

from .events import Event, Snapshot

E = TypeVar("E", bound=Event)

QUEUE_SIZE = 256


class Overflow(StrEnum):
    """What happens to a subscriber whose queue is full.

    `RESYNC`: the queue is emptied and a fresh `Snapshot` takes its place, so that no lifecycle
    event is lost silently. `COALESCE`: of events with the same key only the newest is kept; what
    still overflows resyncs. `DROP_OLDEST`: the oldest goes and is counted.
    """

    RESYNC = "resync"
    COALESCE = "coalesce"
    DROP_OLDEST = "drop-oldest"


class Subscription(AsyncIterator[Event]):
    """The events of one subscriber, in order; ends when the bus closes or `close` is called.

    `dropped` counts the events that this subscriber lost to its policy.
    """

    def __init__(
        self,
        bus: Bus,
        kinds: tuple[type[Event], ...],
        overflow: Overflow,
        maxsize: int,
    ) -> None:
        self._bus = bus
        self._kinds = kinds
        self._overflow = overflow
        self._maxsize = maxsize
        # Keyed by what coalesces, else by the sequence number: one structure serves all policies.
        self._pending: OrderedDict[object, Event] = OrderedDict()
        self._resync = False
        self._closed = False
        self._wakeup: asyncio.Future[None] | None = None
        self.dropped = 0

    @property
    def kinds(self) -> tuple[type[Event], ...]:
        """The kinds of events that it asked for by name; none for all."""
        return self._kinds

    def begin(self, snapshot: Snapshot) -> None:
        """Make the snapshot the first event; called by the bus."""
        self._pending[self] = snapshot

    def put(self, event: Event) -> None:
        """Queue an event if this subscriber wants it; called by the bus."""
        if self._closed or (self._kinds and not isinstance(event, self._kinds)):
            return
        if self._resync:
            self.dropped += 1  # the snapshot that is due covers it
            return
        self._queue(event)
        if len(self._pending) > self._maxsize:
            self._make_room()
        self._wake()

    def _queue(self, event: Event) -> None:
        key: object = event.seq
        if self._overflow is Overflow.COALESCE and event.key is not None:
            key = event.key
            self.dropped += self._pending.pop(key, None) is not None
        self._pending[key] = event

    def _make_room(self) -> None:
        if self._overflow is Overflow.DROP_OLDEST:
            self._pending.popitem(last=False)
            self.dropped += 1
            return
        self.dropped += len(self._pending)
        self._pending.clear()
        self._resync = True

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def __anext__(self) -> Event:
        while not self._pending and not self._resync:
            if self._closed:
                raise StopAsyncIteration
            if self._wakeup is not None:
                raise RuntimeError("A subscription has one reader; subscribe once for each.")
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        if self._resync:
            # Built now rather than when the queue overflowed: the newest state is what counts.
            self._resync = False
            return self._bus.snapshot()
        return self._pending.popitem(last=False)[1]

    def close(self) -> None:
        """End the subscription; what is queued is still delivered."""
        self._closed = True
        self._bus.forget(self)
        self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class Bus:
    """Publishes events to subscribers; belongs to one kernel and its event loop."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._take_snapshot = snapshot
        self._subscribers: list[Subscription] = []
        self._seq = 0
        self._closed = False

    @property
    def seq(self) -> int:
        """The number of the newest event."""
        return self._seq

    def publish(self, event: E) -> E:
        """Number the event and hand it to every subscriber; never blocks, never raises."""
        self._seq += 1
        event = replace(event, seq=self._seq)
        for subscriber in self._subscribers:
            subscriber.put(event)
        return event

    def snapshot(self) -> Snapshot:
        """Return where everything stands, numbered as the newest event."""
        return replace(self._take_snapshot(), seq=self._seq)

    def subscribe(
        self,
        *kinds: type[Event],
        overflow: Overflow = Overflow.RESYNC,
        maxsize: int = QUEUE_SIZE,
        snapshot: bool = True,
    ) -> Subscription:
        """Subscribe to events of these kinds (all, if none is named); a snapshot comes first."""
        subscription = Subscription(self, kinds, overflow, maxsize)
        if snapshot:
            subscription.begin(self.snapshot())
        if self._closed:
            subscription.close()
        else:
            self._subscribers = [*self._subscribers, subscription]
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Stop delivering to a subscriber."""
        self._subscribers = [each for each in self._subscribers if each is not subscription]

    def wants(self, kind: type[Event]) -> bool:
        """Say whether a subscriber asked for this kind by name."""
        return any(kind in subscriber.kinds for subscriber in self._subscribers)

    def close(self) -> None:
        """End every subscription after what it has queued."""
        self._closed = True
        for subscription in self._subscribers:
            subscription.close()
