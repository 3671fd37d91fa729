"""A mirror of a store without `async`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiplayground.stores import Change, Changes

    from ._stores import RemoteStore


class BlockingStore:
    """A store of a kernel elsewhere; its actions are methods that block. Any thread may use it."""

    def __init__(self, store: RemoteStore[Any], run: Callable[..., Any]) -> None:
        self._store = store
        self._run = run

    @property
    def state(self) -> Any:
        """The state as it is; it never changes itself, another one takes its place."""
        return self._store.state

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._store.version

    def subscribe(self, field: str | None = None) -> Iterator[Change[Any]]:
        """Yield changes, beginning with a snapshot; leaving the loop ends it."""

        async def begin() -> Changes[Any]:
            return self._store.subscribe(field)

        async def end() -> None:
            changes.close()

        changes: Changes[Any] = self._run(begin)
        try:
            while (change := self._run(anext, changes, None)) is not None:
                yield change
        finally:
            self._run(end)

    def call(self, action: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Call an action by its outside name; plain data in and out."""
        return self._run(self._store.call, action, params)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._do, getattr(self._store, name))

    def _do(self, action: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        return self._run(partial(action, *positional, **named))
