"""The kernel as one service sees it: implements `aiplayground.context.ServiceContext`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._library import GGUF_ONLY

if TYPE_CHECKING:
    import logging

    import httpx

    from ._service import Service
    from ._worker import Worker
    from .context import WorkerHandle
    from .errors import AIPlaygroundError
    from .kernel import Kernel
    from .models import LocalModel
    from .specs import Device, LaunchSpec

P = ParamSpec("P")
T = TypeVar("T")


class Context:
    """What hooks of one service are given; `model` is the one that a start is wanted for."""

    def __init__(self, service: Service, model: str | None = None) -> None:
        self._service = service
        self.model = model

    @property
    def service(self) -> str:
        """The service's name."""
        return self._service.name

    @property
    def settings(self) -> Any:
        """The service's settings, validated."""
        return self._service.ops.settings

    @property
    def data_dir(self) -> Path:
        """Where the engine's own files belong; exists."""
        return _existing(self._service.host.paths.service_data(self.service))

    @property
    def cache_dir(self) -> Path:
        """Where what can be made again belongs; exists."""
        return _existing(self._service.host.paths.service_cache(self.service))

    @property
    def logger(self) -> logging.Logger:
        """Writes to the service's log."""
        return self._service.log.logger

    @property
    def selected_devices(self) -> tuple[Device, ...]:
        """The device that the user selected, as this plugin reported it."""
        return self._service.host.kernel.selected_for(self.service)

    @property
    def workers(self) -> Mapping[str, Worker]:
        """The service's workers by name."""
        return self._service.pool.workers

    @property
    def kernel(self) -> Kernel:
        """The kernel itself."""
        return self._service.host.kernel

    @property
    def http(self) -> httpx.AsyncClient:
        """An HTTP client for talking to workers."""
        attachment = self._service.attachment
        return self._service.host.http() if attachment is None else attachment.http

    async def spawn(self, spec: LaunchSpec) -> Worker:
        """Launch a worker, wait until it is ready, and supervise it from then on."""
        return await self._service.pool.spawn(spec)

    def bind(self, host: str = "127.0.0.1") -> socket.socket:
        """Return a bound socket for what the service serves in this process."""
        return self._service.pool.bind(host)

    def serve(self, base_url: str, close: Callable[[], Awaitable[None]]) -> None:
        """Say where the service answers in this process, until `close` is awaited."""
        self._service.inside.open(base_url, close)

    async def end(self, worker: WorkerHandle) -> None:
        """End one worker and all that it started."""
        await self._service.pool.end(worker.name)
        self._service.supervisor.worker_ended()

    async def endpoint(self, model: str | None) -> str:
        """Return the base URL of the worker that speaks the OpenAI API for this model."""
        return await self._service.ops.endpoint(model)

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        """Turn a broken connection to a worker into an error that says why the worker went."""
        attachment = self._service.attachment
        if attachment is not None and not self.workers:
            return attachment.explain(error)
        return await self._service.pool.lost(base_url, error)

    async def run_sync(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a thread."""
        return await asyncio.to_thread(func, *args, **kwargs)

    async def local_models(self, formats: Collection[str] = GGUF_ONLY) -> Sequence[LocalModel]:
        """Return the models of these formats in the model folders and model packs."""
        return await self._service.host.library.local(formats)

    async def find_model(self, name: str, formats: Collection[str] = GGUF_ONLY) -> LocalModel:
        """Return the model of this name, if it has one of these formats."""
        return await self._service.host.library.find(name, formats)


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
