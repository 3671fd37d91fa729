"""What a hook is given, without a kernel: for unit tests of hooks.

    ctx = FakeContext(settings=Settings(), handler=lambda request: httpx.Response(200, json={}))
    await plugin.start(ctx)
    assert ctx.spawned[0].argv[0] == "my-engine"

The fakes keep the kernel's rules where a hook could break them: one primary worker, a worker of
the same name replaces the older, ended workers are gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import httpx

from aiplayground.errors import AIPlaygroundError, PluginError, ServiceFailed, ServiceNotAvailable
from aiplayground.models import LocalModel, match_model
from aiplayground.states import Runtime
from aiplayground.status import WorkerInfo

if TYPE_CHECKING:
    from aiplayground.context import WorkerHandle
    from aiplayground.kernel import Kernel
    from aiplayground.specs import Device, LaunchSpec

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PORT = 40001


@dataclass(slots=True)
class FakeWorker:
    """A worker without a process; change `state`, `base_url` and `model` as the test needs."""

    spec: LaunchSpec
    base_url: str
    state: Runtime = Runtime.RUNNING
    token: str = "token-of-a-fake"  # it guards nothing
    restarts: int = 0
    model: str | None = None

    def __post_init__(self) -> None:
        self.model = self.spec.model

    @property
    def name(self) -> str:
        """The name that its `LaunchSpec` gave it."""
        return self.spec.name

    @property
    def info(self) -> WorkerInfo:
        """Where it stands, as values."""
        return WorkerInfo(
            name=self.name,
            state=self.state,
            primary=self.spec.primary,
            model=self.model,
            base_url=self.base_url,
            pid=None,
            restarts=self.restarts,
        )


def _no_answer(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nothing listens here: give FakeContext a handler", request=request)


@dataclass(slots=True, kw_only=True)
class FakeContext:
    """A `ServiceContext` for unit tests.

    `handler` answers what the hook asks over `http` (a function from `httpx.Request` to
    `httpx.Response`, or a coroutine function). `models` are the model files there are.
    `refuse` makes every `spawn` fail with it. `spawned` and `ended` list what the hook did.
    """

    service: str = "fake"
    settings: Any = None
    model: str | None = None
    models: Sequence[LocalModel] = ()
    selected_devices: tuple[Device, ...] = ()
    handler: Callable[[httpx.Request], Any] = _no_answer
    refuse: ServiceFailed | None = None
    folder: Path | None = None
    spawned: list[LaunchSpec] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    on: Kernel | None = None
    """What `kernel` returns."""
    serves: tuple[str, Callable[[], Awaitable[None]]] | None = None
    """What the hook gave to `serve`."""
    lost_to: AIPlaygroundError | None = None
    """What `lost` returns; None: that the connection broke while the worker was there."""
    _workers: dict[str, FakeWorker] = field(default_factory=dict, init=False)
    _http: httpx.AsyncClient | None = field(default=None, init=False)

    @property
    def logger(self) -> logging.Logger:
        """A logger of its own, which pytest's `caplog` sees."""
        return logging.getLogger(f"aiplayground.testing.{self.service}")

    @property
    def data_dir(self) -> Path:
        """A folder that exists."""
        return self._existing("data")

    @property
    def cache_dir(self) -> Path:
        """Another folder that exists."""
        return self._existing("cache")

    def _existing(self, name: str) -> Path:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="aipg-fake-"))
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def workers(self) -> Mapping[str, FakeWorker]:
        """The workers by name."""
        return self._workers

    @property
    def kernel(self) -> Kernel:
        """The kernel that the test gave; raises `RuntimeError` if it gave none."""
        if self.on is None:
            raise RuntimeError("This hook asks for the kernel: FakeContext(on=kernel).")
        return self.on

    def bind(self, host: str = "127.0.0.1") -> socket.socket:
        """Return a socket that is bound to a free port."""
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        bound.bind((host, 0))
        return bound

    def serve(self, base_url: str, close: Callable[[], Awaitable[None]]) -> None:
        """Note where the service answers; the test awaits `close` itself."""
        self.serves = (base_url, close)

    @property
    def http(self) -> httpx.AsyncClient:
        """A client whose requests `handler` answers; no socket is opened."""
        if self._http is None:
            self._http = httpx.AsyncClient(transport=httpx.MockTransport(self.handler))
        return self._http

    async def spawn(self, spec: LaunchSpec) -> FakeWorker:
        """Note the spec and return a worker that runs; raises `refuse` if that is set."""
        if self.refuse is not None:
            raise self.refuse
        if spec.name in self._workers:
            await self.end(self._workers[spec.name])
        if spec.primary and any(each.spec.primary for each in self._workers.values()):
            raise PluginError("the service has a primary worker already.")
        self.spawned.append(spec)
        port = FIRST_PORT + len(self.spawned) - 1
        worker = self._workers[spec.name] = FakeWorker(spec, f"http://127.0.0.1:{port}")
        return worker

    async def end(self, worker: WorkerHandle) -> None:
        """Take the worker out."""
        if self._workers.pop(worker.name, None) is not None:
            self.ended.append(worker.name)

    async def endpoint(self, model: str | None) -> str:
        """Return the address of the worker that holds the model, else of the primary one."""
        workers = list(self._workers.values())
        holders = [each for each in workers if each.model == model and model is not None]
        for worker in [*holders, *(each for each in workers if each.spec.primary)]:
            if worker.state is Runtime.RUNNING:
                return worker.base_url
        raise ServiceNotAvailable(f"{self.service} has no worker that answers now.")

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        """Return `lost_to`, or that the connection broke."""
        return self.lost_to or ServiceNotAvailable(
            f"{self.service}: the connection to its worker at {base_url} broke ({error})."
        )

    async def run_sync(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a thread."""
        return await asyncio.to_thread(func, *args, **kwargs)

    async def local_models(self, formats: Collection[str] = ("gguf",)) -> Sequence[LocalModel]:
        """Return those of `models` that have one of the formats."""
        return [each for each in self.models if each.format in formats]

    async def find_model(self, name: str, formats: Collection[str] = ("gguf",)) -> LocalModel:
        """Return the model of this name; raises `ModelNotFound`."""
        return match_model(name, await self.local_models(formats))

    async def aclose(self) -> None:
        """Close the client."""
        if self._http is not None:
            await self._http.aclose()
