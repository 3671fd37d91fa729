"""What can be watched: a state that changes in versions, and those who follow it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from aiplayground._bus import QUEUE_SIZE, Bus, Subscription
from aiplayground.errors import AIPlaygroundError, InvalidParameters, suggest
from aiplayground.events import Event, Snapshot

from ._state import StoreState

S = TypeVar("S", bound=StoreState)

_CHANGE = "change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Event, Generic[S]):
    """A state as it is from now on.

    `changes` holds the fields that became others, by name. A `snapshot` comes first, and in the
    place of changes that a slow reader missed: its `changes` are all fields. `before` is the state
    that it followed (None of a snapshot).
    """

    store: str
    version: int
    state: S
    changes: Mapping[str, Any] = field(default_factory=dict)
    before: S | None = None

    @property
    def snapshot(self) -> bool:
        """Whether it says where everything stands, rather than what became different."""
        return self.before is None


class Changes(AsyncIterator[Change[S]]):
    """The changes of a state, in order, beginning with a snapshot.

    With a field (or getter) those in which it became another alone. Ends when the store closes;
    raises what the store failed with. `dropped` counts changes that a snapshot took the place of.
    """

    def __init__(self, owner: Observable[S], field: str | None, maxsize: int) -> None:
        self._owner = owner
        self._field = field
        self._last: Any = None
        self._events: Subscription = owner._bus.subscribe(maxsize=maxsize)  # noqa: SLF001  # a pair

    @property
    def dropped(self) -> int:
        """How many changes this reader was too slow for."""
        return self._events.dropped

    async def __anext__(self) -> Change[S]:
        while True:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                if self._owner.failure is not None:
                    raise self._owner.failure from None
                raise
            change: Change[S] = (
                event.extra[_CHANGE] if isinstance(event, Snapshot) else event  # type: ignore[assignment]  # the bus carries nothing else
            )
            if self._concerns(change):
                return change

    def _concerns(self, change: Change[S]) -> bool:
        if self._field is None:
            return True
        value = getattr(change.state, self._field)
        different = change.snapshot or value != self._last
        self._last = value
        return different

    def close(self) -> None:
        """End it; what is queued is still delivered."""
        self._events.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class Observable(Generic[S]):
    """Holds a state in versions. `_advance` is the one way in which it changes."""

    def __init__(self, name: str, state: S) -> None:
        self._called = name
        self._state = state
        self._version = 0
        self._bus = Bus(self._snapshot)
        self.failure: AIPlaygroundError | None = None
        """Why it ended, if it did not end in order."""

    @property
    def state(self) -> S:
        """The state as it is; it never changes itself, another one takes its place."""
        return self._state

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._version

    def subscribe(self, field: str | None = None, *, maxsize: int = QUEUE_SIZE) -> Changes[S]:
        """Follow the state, or one field or getter of it; a snapshot comes first.

        Of a reader that leaves more than `maxsize` changes waiting they are replaced by a snapshot.
        Raises `InvalidParameters` for a field that there is not.
        """
        known = (*type(self._state).model_fields, *type(self._state).getters())
        if field is not None and field not in known:
            raise InvalidParameters(
                f"The store '{self._called}' has no field '{field}'.{suggest(field, known)}",
                details={"field": field, "known": list(known)},
            )
        return Changes(self, field, maxsize)

    def _advance(self, state: S, version: int, changes: Mapping[str, Any] | None) -> None:
        """Take the next state; without `changes` it is a snapshot to those who follow."""
        before, self._state, self._version = self._state, state, version
        told = self._snapshot_change()
        if changes is not None:
            told = Change(
                store=self._called, version=version, state=state, changes=changes, before=before
            )
        self._bus.publish(told)

    def _end(self, failure: AIPlaygroundError | None = None) -> None:
        self.failure = failure
        self._bus.close()

    def _snapshot_change(self) -> Change[S]:
        state = self._state
        fields = {name: getattr(state, name) for name in type(state).model_fields}
        return Change(store=self._called, version=self._version, state=state, changes=fields)

    def _snapshot(self) -> Snapshot:
        return Snapshot(extra={_CHANGE: self._snapshot_change()})
