"""The engine protocol: what a backend author writes to be served by a worker.

An engine lives in one process with one event loop and holds at most one model. Engines that need
a thread of their own keep it inside: every method here is called on the loop and must not block
it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from aiplayground.types import (
        ChatChunk,
        ChatRequest,
        CompletionRequest,
        Embeddings,
        EmbedRequest,
        RerankRequest,
        Scores,
    )

Progress: TypeAlias = Callable[[float], None]
"""Told how far a load has come, 0 to 1. Engines call it from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """The model in memory. `context_length` is in tokens; `chat`: it comes with a template."""

    name: str
    path: Path
    context_length: int
    chat: bool = True


class Engine(Protocol):
    """One inference engine in this process.

    `parameters` names the request fields that it honours; the worker answers -4 to any other, so
    that nothing is ignored in silence.
    """

    @property
    def parameters(self) -> frozenset[str]:
        """Fields of `ChatRequest` and `CompletionRequest` that have an effect."""

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that requests can use now."""

    @property
    def active(self) -> int:
        """How many requests are waiting or being worked on."""

    async def open(self) -> None:
        """Bring up what the engine needs before any model. Called once, first.

        Raises `ServiceFailed` with the cause, for instance a missing shared library.
        """

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        """Load the model file, in place of the one that is loaded. Never called twice at a time.

        Cancelling the call abandons the load. Raises `InvalidModelFile` or `ServiceFailed`; after
        an error the engine goes on, with or without its former model.
        """

    async def unload(self) -> None:
        """Free the model; requests in progress fail with `ServiceNotAvailable`."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation, chunk by chunk; the last one has finish reason and usage.

        With `n` answers each has its own index, and its own last chunk. What the model writes goes
        through `shape.shaped`, which separates reasoning and tool calls; `tools.asked` turns a
        tool that must be called into a schema.
        Closing the generator ends the engine's work at its next step, also while it still reads
        the prompt. Bad requests raise `InvalidParameters` before the first chunk.
        """

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        """Continue a text; otherwise as `chat`."""

    async def close(self) -> None:
        """Free everything, ending what is in progress. Called once, last; must be bounded."""


@runtime_checkable
class EmbeddingEngine(Protocol):
    """An engine that also makes embeddings."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn texts into vectors; cancelling the call ends the work."""


@runtime_checkable
class RerankEngine(Protocol):
    """An engine that also says how well documents answer a query."""

    async def rerank(self, request: RerankRequest) -> Scores:
        """Return a score for each document, whatever `top_n` says; cancelling ends the work.

        Raises `InvalidParameters` if the model that is loaded does not rank.
        """


@runtime_checkable
class ReleasingEngine(Protocol):
    """An engine that keeps things in memory which it can do without."""

    @property
    def releasable(self) -> int:
        """The bytes of them now; asked for on the loop, at any time."""

    async def release(self) -> int:
        """Give them up and return the bytes; requests in progress go on."""


@runtime_checkable
class CountingEngine(Protocol):
    """An engine with figures of its own for `/metrics`."""

    @property
    def counters(self) -> Mapping[str, float]:
        """Sums since the start, by names of lower-case letters and underscores."""
