"""The running kernel, with the methods of one that a conversation needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from aiplayground import _openai
from aiplayground._bus import Bus
from aiplayground.errors import ModelNotFound, ServiceNotAvailable
from aiplayground.events import Snapshot
from aiplayground.types import ModelInfo

from .exits import NotRunning

if TYPE_CHECKING:
    from aiplayground._bus import Subscription
    from aiplayground.errors import AIPlaygroundError
    from aiplayground.events import Event
    from aiplayground.paths import Paths
    from aiplayground.types import ChatChunk, ChatRequest

    from ._remote import Remote

ROUTER = "ai-backend"
"""The model's name that means "whichever is the default"."""

_FIELDS = frozenset(ModelInfo.model_fields)


@dataclass(frozen=True, slots=True)
class RemoteService:
    """A service of the running kernel, as it was when the command began."""

    title: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Connection:
    """What the kernel's own client of the OpenAI API needs (`ServiceContext`, in part)."""

    service: str
    url: str
    http: httpx.AsyncClient

    async def endpoint(self, model: str | None) -> str:
        """Return where the API is."""
        return self.url

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        """Say that the kernel went away."""
        return ServiceNotAvailable(f"The running kernel went away ({type(error).__name__}).")


class RemoteKernel:
    """A kernel in another process. Its narration is silent: only answers come over."""

    def __init__(self, remote: Remote, paths: Paths, http: httpx.AsyncClient) -> None:
        self.paths = paths
        self._remote = remote
        self._connection = _Connection("the running kernel", remote.url, http)
        self._bus = Bus(Snapshot)
        self._services = {
            each["name"]: RemoteService(each["title"], tuple(each["models"]))
            for each in remote.services()
        }

    def services(self) -> tuple[RemoteService, ...]:
        """Return every service."""
        return tuple(self._services.values())

    def service(self, name: str) -> RemoteService:
        """Return one service."""
        return self._services[name]

    def subscribe(self, *kinds: type[Event], snapshot: bool = True) -> Subscription:
        """Return a subscription to which nothing comes."""
        return self._bus.subscribe(*kinds, snapshot=snapshot)

    async def default_model(self, service: str | None = None) -> str:
        """Return the name that leaves the choice to the running kernel; of a service, one of its.

        Raises `ModelNotFound` where the service has none.
        """
        if service is None:
            return ROUTER
        own = [each for each in await self.models() if each.service == service]
        own = [each for each in own if each.type == "llm"] or own
        if not own:
            raise ModelNotFound(f"{service} has no model. `aipg models` lists those that are here.")
        return max(own, key=lambda each: bool(each.loaded)).name

    async def models(self) -> list[ModelInfo]:
        """List every model."""
        found = await asyncio.to_thread(self._remote.ask, "GET", "/v1/models")
        return [_model(each) for each in found["data"]]

    async def ensure_ready(self, service: str, model: str) -> None:
        """Have a model in memory."""
        await asyncio.to_thread(self._remote.act, service, "start", model)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation, chunk by chunk."""
        request = request.model_copy(update={"model": _as_here(request.model)})
        context: Any = self._connection
        async with aclosing(_openai.chat(context, request)) as chunks:  # type: ignore[type-var]  # it is an async generator
            async for chunk in chunks:
                yield chunk


@asynccontextmanager
async def connected(remote: Remote, paths: Paths) -> AsyncIterator[RemoteKernel]:
    """Talk to the running kernel; raises `NotRunning` if it does not answer."""
    headers = {"Authorization": f"Bearer {remote.token}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        try:
            yield await asyncio.to_thread(RemoteKernel, remote, paths, http)
        except httpx.TransportError as error:
            raise NotRunning(f"The running kernel does not answer ({error}).") from error


def _as_here(name: str) -> str:
    """Return a path as a full one: the running kernel has a working directory of its own."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.suffix.lower() == ".gguf" and path.is_file() else name


def _model(shown: dict[str, Any]) -> ModelInfo:
    known = {name: value for name, value in shown.items() if name in _FIELDS}
    service = shown["owned_by"]
    return ModelInfo(**known, name=shown["id"].removeprefix(f"{service}/"), service=service)
