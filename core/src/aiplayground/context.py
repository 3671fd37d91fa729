"""What a hook is given: the kernel's services, as an interface.

Backend authors type against these protocols; the kernel implements them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    import logging
    import socket

    import httpx

    from .errors import AIPlaygroundError
    from .kernel import Kernel
    from .models import LocalModel
    from .specs import Device, LaunchSpec
    from .status import WorkerInfo

P = ParamSpec("P")
T = TypeVar("T")


class WorkerHandle(Protocol):
    """A worker of the service: a supervised process, or an endpoint that is attached."""

    @property
    def name(self) -> str:
        """The name that its `LaunchSpec` gave it."""

    @property
    def base_url(self) -> str:
        """Where it answers now, for instance `http://127.0.0.1:8080`; a restart may change it."""

    model: str | None
    """The model it holds. The kernel sets it from the `LaunchSpec` at each launch; a backend that
    loads another model into a running worker sets it then."""

    @property
    def token(self) -> str:
        """A secret that only kernel and worker know (the child's `AIPG_WORKER_TOKEN`)."""

    @property
    def info(self) -> WorkerInfo:
        """Where it stands, as values."""


class ServiceContext(Protocol):
    """The kernel as one service sees it. Every hook that concerns one backend gets it first."""

    @property
    def service(self) -> str:
        """The service's name."""

    @property
    def settings(self) -> Any:
        """The service's settings: an instance of the model that `BackendSpec.settings` names."""

    @property
    def data_dir(self) -> Path:
        """Where the engine's own files belong; exists."""

    @property
    def cache_dir(self) -> Path:
        """Where what can be made again belongs; exists."""

    @property
    def logger(self) -> logging.Logger:
        """Writes to the service's log file and live stream, and nowhere else."""

    @property
    def model(self) -> str | None:
        """In `start`: the model that the caller wants first, if any; a backend may ignore it."""

    @property
    def selected_devices(self) -> tuple[Device, ...]:
        """The device that the user selected, as this plugin's own `detect_devices` reported it.

        Empty if none is selected, or none that this plugin knows. Several entries are names of one
        device (`CUDA0`, `Vulkan0`).
        """

    @property
    def workers(self) -> Mapping[str, WorkerHandle]:
        """The service's workers by name."""

    @property
    def http(self) -> httpx.AsyncClient:
        """An HTTP client for talking to workers; the kernel closes it."""

    @property
    def kernel(self) -> Kernel:
        """The kernel, for plugins that are doors onto it; its public methods are the interface."""

    def bind(self, host: str = "127.0.0.1") -> socket.socket:
        """Return a bound socket, not listening, for what the service serves in this process.

        Its port is the one that the user fixed, else the preferred, else a free one. Raises
        `ServiceFailed` if the fixed one is taken. The caller closes it.
        """

    def serve(self, base_url: str, close: Callable[[], Awaitable[None]]) -> None:
        """Say that the service answers at `base_url` from inside the kernel's own process.

        For a backend without a worker, in `start`: `base_url` shows as the service's address, and
        the kernel awaits `close` when the service stops or its start fails.
        """

    async def spawn(self, spec: LaunchSpec) -> WorkerHandle:
        """Launch a worker, wait until it is ready, and supervise it from then on.

        Raises `ServiceFailed` with a classified cause when it does not come up.
        """

    async def end(self, worker: WorkerHandle) -> None:
        """End one worker and all that it started."""

    async def endpoint(self, model: str | None) -> str:
        """Return the base URL of the worker that speaks the OpenAI API for this model."""

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        """Turn a broken connection to a worker into an error that says why the worker went."""

    async def run_sync(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a thread: the way out of the kernel's event loop."""

    async def local_models(self, formats: Collection[str] = ("gguf",)) -> Sequence[LocalModel]:
        """Return the models in the model folders and model packs, read from metadata.

        `formats` are those of `aiplayground.models.Format` that the engine loads.
        """

    async def find_model(self, name: str, formats: Collection[str] = ("gguf",)) -> LocalModel:
        """Return the model of this name; raise `ModelNotFound` with what comes close."""
