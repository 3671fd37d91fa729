"""What a conversation needs of a kernel: its own, or one that runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiplayground._bus import Subscription
    from aiplayground.events import Event
    from aiplayground.paths import Paths
    from aiplayground.types import ChatChunk, ChatRequest, ModelInfo


class ServiceView(Protocol):
    """What is shown of a service."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models in its memory."""


class ChatKernel(Protocol):
    """A kernel, as far as `aipg chat` talks to it."""

    @property
    def paths(self) -> Paths:
        """The directories of its home."""

    def services(self) -> Sequence[ServiceView]:
        """Return every service."""

    def service(self, name: str) -> ServiceView:
        """Return one service."""

    def subscribe(self, *kinds: type[Event], snapshot: bool = True) -> Subscription:
        """Subscribe to events."""

    async def default_model(self, service: str | None = None) -> str:
        """Return the model that is meant when none is named; of one service, if one is."""

    async def models(self) -> list[ModelInfo]:
        """List every model."""

    async def ensure_ready(self, service: str, model: str) -> None:
        """Have a model in memory."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation, chunk by chunk."""
