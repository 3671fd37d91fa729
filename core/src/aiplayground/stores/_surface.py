"""What a user interface gets, from a kernel in its own process or from a client: the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ._observe import Changes
from ._state import StoreState

S = TypeVar("S", bound=StoreState)


class StoreView(Protocol[S]):
    """Any store."""

    @property
    def state(self) -> S:
        """The state as it is; it never changes itself, another one takes its place."""

    @property
    def version(self) -> int:
        """How many changes there were."""

    def subscribe(self, field: str | None = None, *, maxsize: int = ...) -> Changes[S]:
        """Follow the state, or one field or getter of it; a snapshot comes first."""

    async def call(self, action: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Call an action by its outside name; plain data in and out."""
