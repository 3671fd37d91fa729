"""The kernel: what plugins, services, events and settings are put together from.

`Kernel` is an async context manager. It installs no signal handler, touches no global logging
configuration, prints nothing, and any number of them live side by side in one process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ._bus import QUEUE_SIZE, Bus, Overflow, Subscription
from ._catalogue import Catalogue
from ._contributions import Contributions
from ._endpoint import attached_keys, endpoints
from ._files import Opener
from ._front import MethodTable, Parts, detach_all
from ._home import HomeLock, open_ledger
from ._host import Host
from ._inference import Inference
from ._launch import Launcher
from ._library import Library
from ._loader import PluginSet, load_plugins
from ._logs import KERNEL, LogHub, ServiceLog, hiding, redact
from ._router import Router
from ._services import Services
from ._stores import Stores
from ._watching import ModelWatch
from ._worker_http import WorkerHttp
from .admission import make_admission
from .devices import DeviceDesk
from .errors import ServiceNotAvailable
from .events import (
    Event,
    KernelStopped,
    KernelStopping,
    LoopBlocked,
    ModelsChanged,
    ServiceInfoUpdate,
    Snapshot,
)
from .models import ModelPaths
from .paths import Paths
from .secrets import Secrets
from .settings import KernelSettings, Layers, load_layers
from .shell import Shells
from .specs import Device
from .types import ChatRequest, EmbedRequest
from .validation import parse, parse_generate

if TYPE_CHECKING:
    from ._front import Part
    from ._method import Method
    from ._processes.ledger import Ledger
    from ._service import Service
    from .admission import LoadPlan
    from .devices import ComputeDevice
    from .leases import Lease
    from .models import ModelProblem
    from .specs import BackendSpec, Capability, Health
    from .status import ServiceInfo
    from .types import (
        ChatChunk,
        Embeddings,
        GenerateEvent,
        GenerateRequest,
        ModelInfo,
    )

NOT_OPEN = "The kernel is not open: use `async with Kernel()`."


class Kernel:
    """Runs backends.

    `home`: the folder that everything lies under (default: `AIPG_HOME`, else the platform's
    places). `plugins`: plugin objects by name, or `Path`s of manifests, besides those that are
    installed; `discover=False` leaves the installed ones out. `settings`: the top layer, in the
    shape of the settings file. `exclusive`: be the only such kernel of this home, or fail saying
    who holds it.

        async with Kernel() as kernel:
            async for chunk in kernel.chat(request):
                ...

    Raises `InvalidSettings` and `FileOperationError` when it cannot come up.
    """

    def __init__(
        self,
        *,
        home: Path | str | None = None,
        plugins: Mapping[str, Any] | None = None,
        discover: bool = True,
        settings: Mapping[str, Any] | None = None,
        exclusive: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.paths = Paths.resolve(home, environ)
        self.secrets = Secrets(self.paths, environ)
        self.layers: Layers = load_layers(self.paths, environ, settings or {})
        self.settings: KernelSettings = self.layers.kernel()
        self.model_paths = ModelPaths.of(self.paths, self.settings.models, environ)
        self.plugins: PluginSet = load_plugins(
            list((plugins or {}).items()),
            discover=discover,
            allow=self.settings.plugins.allow,
            deny=self.settings.plugins.deny,
            endpoints=endpoints(self.settings.attach),
            manifests=self.paths.manifests,
        )
        keys = attached_keys(self.settings, self.plugins.owners)
        self._hide_keys = hiding([key for each in keys.values() for key in each])
        self.id = uuid.uuid4().hex
        self.exclusive = exclusive
        self._router = Router(
            self.plugins, self._on_blocked, {name: hiding(key) for name, key in keys.items()}
        )
        self._contributions = Contributions(self._router, lambda: self.log().logger)
        self._bus = Bus(self._snapshot)
        self._services = Services(self.plugins.failures)
        self._http = WorkerHttp()
        self._methods = MethodTable(self)
        self._parts = Parts(self)
        self.shells = Shells(self)
        self.device_desk = DeviceDesk(self)
        self.opener = Opener()
        self.stores = Stores(self)
        self.store = self.stores.open
        self._stack = AsyncExitStack()
        self._opened = False
        self._open = False
        self._closing = False

    # Life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Come up: folders, leftovers of kernels that died, services (none is started)."""
        if self._opened:
            raise RuntimeError("A kernel opens once. Make a new one: `async with Kernel() as k`.")
        self._opened = True
        try:
            await self._come_up()
        except BaseException:
            await self._services.close()
            await self._stack.aclose()
            raise
        self._open = True
        wanted = (name for name in self._services if self.settings.service(name).autostart)
        self._services.start_in_background(wanted)

    async def _come_up(self) -> None:
        self.paths.ensure()
        if self.exclusive:
            self._stack.enter_context(HomeLock(self.paths))
        ledger = await asyncio.to_thread(open_ledger, self.paths, self.id)
        self._stack.push_async_callback(asyncio.to_thread, ledger.close)
        self._logs = self._open_logs()
        self._stack.push_async_callback(self._http.aclose)
        self._stack.push_async_callback(detach_all, self)
        self.device_desk.load()
        self._open_library()
        self._host = self._make_host(ledger)
        self._services.add(self._router.specs, self._host)
        self._catalogue = Catalogue(self._host, self._services)
        self._inference = Inference(self._host, self._services, self._catalogue)
        self._log_plugins()
        await self._services.open()
        # What still runs when the interpreter exits with the kernel open is ended.
        atexit.register(self._services.kill_now)
        self._stack.callback(atexit.unregister, self._services.kill_now)

    def _open_logs(self) -> LogHub:
        limits = self.settings.logs
        logs = LogHub(
            self.paths.logs,
            max_bytes=limits.max_bytes,
            backups=limits.backups,
            level=limits.level,
            redact=lambda text: redact(self._hide(text)),
        )
        self._stack.push_async_callback(asyncio.to_thread, logs.close)
        return logs

    def _open_library(self) -> None:
        packs, log = self._contributions.together("model_files"), self.log().logger
        self.library = Library(self.paths.cache, self.model_paths, packs, self._bus, log)
        self._watch = ModelWatch(
            self.library, self.settings.models, lambda: self._bus.wants(ModelsChanged), log
        )
        self._stack.push_async_callback(self._watch.close)

    def _make_host(self, ledger: Ledger) -> Host:
        return Host(
            kernel=self,
            settings=self.settings,
            layers=self.layers,
            paths=self.paths,
            router=self._router,
            bus=self._bus,
            logs=self._logs,
            library=self.library,
            middleware=self._contributions.together("register_middleware"),
            http=self._http.client,
            announce=self._announce,
            ledger=ledger,
            hide=self._hide,
            keys=self._http.keys,
            launcher=self._launcher,
            admission=make_admission(self, self._services, self.log().logger),
        )

    def _log_plugins(self) -> None:
        """Say in the log which plugins failed, and what authors of the others should know."""
        log = self.log().logger
        for failure in self.plugins.failures:
            log.error("%s", failure.message)
        for plugin in self.plugins.loaded:
            for note in plugin.notes:
                log.warning("%s: %s", plugin.name, note)

    async def close(self) -> None:
        """Go down in stages: no new work, drain, stop services, end subscriptions."""
        if not self._open or self._closing:
            return
        self._closing = True
        unfinished: list[str] = []
        try:
            self._bus.publish(KernelStopping())
            await self._parts.close()
            await self._services.drain(self.settings.timeouts.drain)
            unfinished = await self._services.stop(self.settings.timeouts.shutdown)
        except BaseException:
            # Cancelled in the middle: what still runs has no owner any more.
            self._services.kill_now()
            raise
        finally:
            self._services.give_up_starts()
            self._bus.publish(KernelStopped(unfinished=tuple(unfinished)))
            self._bus.close()
            await self._stack.aclose()
            self._open = False

    # Services -----------------------------------------------------------------------------

    def services(self) -> tuple[ServiceInfo, ...]:
        """Return every service as it stands, in a stable order."""
        return self._services.infos()

    def service(self, name: str) -> ServiceInfo:
        """Return one service as it stands; raises `ServiceNotAvailable` for an unknown one."""
        return self._find(name).info()

    async def start(self, service: str, model: str | None = None) -> ServiceInfo:
        """Start a service; with `model`, bring that into memory as well."""
        self._refuse_when_closing()
        found = self._find(service)
        if model is None:
            await found.start()
        else:
            await self.ensure_ready(service, model)
        return found.info()

    async def stop(self, service: str) -> ServiceInfo:
        """Stop a service; a start in progress is pre-empted."""
        found = self._find(service)
        await found.stop()
        return found.info()

    async def restart(self, service: str) -> ServiceInfo:
        """Stop a service and start it again."""
        await self.stop(service)
        return await self.start(service)

    async def set_up(self, service: str) -> ServiceInfo:
        """Install a service's engine; progress arrives as `ServiceSetUpProgress` events."""
        self._refuse_when_closing()
        found = self._find(service)
        await found.set_up()
        return found.info()

    async def cancel_set_up(self, service: str) -> ServiceInfo:
        """End an installation in progress."""
        found = self._find(service)
        await found.cancel_set_up()
        return found.info()

    async def uninstall(self, service: str) -> ServiceInfo:
        """Stop a service and remove its engine; models stay."""
        found = self._find(service)
        await found.uninstall()
        return found.info()

    async def ensure_ready(self, service: str, model: str) -> None:
        """Have a service running with a model in memory; one start and one load for N callers.

        A service that only routes (`ai-backend`) is started, and the backend that has the model.
        """
        self._refuse_when_closing()
        asked = self._find(service)
        found, info = await self._catalogue.resolve_for(asked, model)
        if found is not asked:
            await asked.start()
        async with self._inference.using(found, info.name):
            pass

    async def health(self, service: str) -> Health | None:
        """Ask a backend how it is; None if it has no way to say."""
        answer: Health | None = await self._find(service).ops.health()
        return answer

    def backend(self, service: str) -> BackendSpec:
        """Return what a backend says of itself; raises `ServiceNotAvailable` for an unknown one."""
        return self._find(service).spec

    def routes(self) -> list[Any]:
        """Return the HTTP routes that plugins bring, for whoever serves them."""
        return self._contributions.together("register_routes")

    def log(self, service: str = KERNEL) -> ServiceLog:
        """Return the log of a service, or the kernel's own."""
        return self._logs.service(service if service == KERNEL else self._find(service).name)

    # Models and inference -----------------------------------------------------------------

    async def models(self) -> list[ModelInfo]:
        """List every model that a backend which is set up can serve now."""
        return await self._catalogue.models()

    async def model_problems(self) -> tuple[ModelProblem, ...]:
        """List the files in the model folders that cannot be used, each with why."""
        return (await self.library.scan()).problems

    async def default_model(self, service: str | None = None) -> str:
        """Return the model that is meant when none is named; raises `ModelNotFound`.

        With a service's name, which of its models is.
        """
        return await self._catalogue.default_model(service and self._find(service).name)

    async def find_model(self, name: str) -> ModelInfo:
        """Return the model that a name means: `model`, or `backend/model`; raises `ModelNotFound`.

        Raises `InvalidParameters` where two backends have one of that name.
        """
        self._refuse_when_closing()
        return (await self._catalogue.resolve(name))[1]

    def passes_through(self, service: str, hook: str) -> bool:
        """Say whether requests for `hook` may go to the service's worker directly: see `lease`.

        So it is where the worker speaks the OpenAI API, the plugin has no such hook of its own,
        and no middleware looks at requests.
        """
        return self._inference.passes_through(self._find(service).name, hook)

    def lease(self, model: ModelInfo, capability: Capability) -> AbstractAsyncContextManager[Lease]:
        """Hold a model for a request that goes to its worker directly, starting what is needed.

        `model` is from `find_model`. For services that `passes_through`.
        """
        self._refuse_when_closing()
        return self._inference.lease(model, capability)

    async def plan(self, model: str, backend: str | None = None) -> LoadPlan:
        """Say what loading a model would need, what is free, and who would go for it.

        Nothing is loaded or unloaded. Raises `ModelNotFound`, and `InvalidParameters` where several
        backends have one of that name.
        """
        self._refuse_when_closing()
        name = self._find(backend).name if backend else None
        service, info = await self._catalogue.resolve(model, name)
        return await self._host.admission.plan(service.name, info.name)

    async def model_size(self, service: str, model: str) -> int | None:
        """Return the bytes of a model's files, if its backend says them."""
        return await self._catalogue.size_of(service, model)

    async def unload(self, service: str, model: str) -> None:
        """Free a model's memory; refused while it is in use."""
        await self._find(service).ops.residency.release(model)

    def pin(self, service: str, model: str, pinned: bool = True) -> None:
        """Keep a model in memory whatever happens, or let it go again."""
        self._find(service).ops.residency.pin(model, pinned)

    async def chat(
        self, request: ChatRequest | Mapping[str, Any]
    ) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation, chunk by chunk; close the generator to stop the engine.

        A mapping in the shape of `ChatRequest` will do. Raises `InvalidParameters`,
        `ModelNotFound`, `ServiceNotAvailable`.
        """
        self._refuse_when_closing()
        async with aclosing(self._inference.chat(parse(ChatRequest, request))) as items:
            async for item in items:
                yield item

    async def generate(
        self, request: GenerateRequest | Mapping[str, Any]
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Make what `request.kind` names, event by event; otherwise as `chat`."""
        self._refuse_when_closing()
        async with aclosing(self._inference.generate(parse_generate(request))) as items:
            async for item in items:
                yield item

    async def embed(self, request: EmbedRequest | Mapping[str, Any]) -> Embeddings:
        """Turn texts into vectors; otherwise as `chat`."""
        self._refuse_when_closing()
        return await self._inference.embed(parse(EmbedRequest, request))

    # Devices ------------------------------------------------------------------------------

    async def devices(self) -> list[Device]:
        """List the devices that plugins report, as they name them; see `compute_devices`."""
        return [device for _, own in await self.reported_devices() for device in own]

    async def reported_devices(self) -> list[tuple[str, Sequence[Device]]]:
        """Ask every plugin for its devices; one that fails is logged and left out."""
        return await self._contributions.devices(self.settings.timeouts.detect)

    async def compute_devices(self) -> list[ComputeDevice]:
        """List what can compute here: what the system shows, joined with what plugins report."""
        return await self.device_desk.detect()

    @property
    def selected_device(self) -> ComputeDevice | None:
        """The device that the user chose, if one was chosen; it may be gone meanwhile."""
        return self.device_desk.selected

    async def select_device(self, device: str) -> ComputeDevice | None:
        """Choose a device by its id or unambiguous name; `auto` takes the choice back.

        Running services that can use it restart onto it. Raises `InvalidParameters` whose details
        list the candidates.
        """
        self._refuse_when_closing()
        return await self.device_desk.select(device)

    def selected_for(self, service: str) -> tuple[Device, ...]:
        """Return the chosen device as a service's own plugin reported it; empty if it did not."""
        owner = self.plugins.owners.get(service, service)
        return self.device_desk.selected_for(owner)

    # Doors --------------------------------------------------------------------------------

    async def call(self, method: str, /, *positional: Any, **named: Any) -> Any:
        """Call an IPC method, as every door does: `await kernel.call("getServices")`.

        Parameters are positional or named, and plain data, as the result is. Raises
        `InvalidParameters`, and what the method raises.
        """
        self._refuse_when_closing()
        if positional and named:
            raise TypeError("IPC methods take positional or named parameters, not both")
        return await self._methods.call(method, positional or named)

    def methods(self) -> Mapping[str, Method]:
        """Return the IPC methods by their outside names: the kernel's own and those of plugins."""
        return self._methods.all()

    def attach_shell(self, shell: Any) -> Callable[[], None]:
        """Attach the window that shows a page (see `shell`); returns what detaches it."""
        return self.shells.attach(shell)

    @property
    def output_folder(self) -> Path:
        """Where pictures are saved."""
        return self.settings.files.output or self.paths.data / "outputs"

    # Events -------------------------------------------------------------------------------

    def subscribe(
        self,
        *kinds: type[Event],
        overflow: Overflow = Overflow.RESYNC,
        maxsize: int = QUEUE_SIZE,
        snapshot: bool = True,
    ) -> Subscription:
        """Subscribe to events of these kinds (all, if none is named); a snapshot comes first."""
        found = self._bus.subscribe(*kinds, overflow=overflow, maxsize=maxsize, snapshot=snapshot)
        if self._open and ModelsChanged in kinds:
            self._watch.begin()
        return found

    def publish(self, event: Event) -> None:
        """Tell the subscribers that something happened; never blocks."""
        self._bus.publish(event)

    def part(self, make: Callable[[Kernel], Part]) -> Part:
        """Return what a plugin keeps for this kernel: made by `make` once, closed with it."""
        self._refuse_when_closing()
        return self._parts.get(make)

    def brought(self, hook: str) -> list[tuple[str, Any]]:
        """Return what each plugin brings; one that fails is logged and left out."""
        return self._contributions.each(hook)

    # Inside -------------------------------------------------------------------------------

    def _find(self, name: str) -> Service:
        if not self._open:
            raise ServiceNotAvailable(NOT_OPEN)
        return self._services.find(name)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ServiceNotAvailable("The kernel is shut down or shutting down.")
        if not self._open:
            raise ServiceNotAvailable(NOT_OPEN)

    def _snapshot(self) -> Snapshot:
        return Snapshot(services=self.services())

    def _announce(self, service: str) -> None:
        self._bus.publish(ServiceInfoUpdate(service=service, services=self.services()))

    def _on_blocked(self, plugin: str, hook: str, seconds: float) -> None:
        self._bus.publish(LoopBlocked(plugin=plugin, hook=hook, seconds=seconds))
        self.log().logger.warning(
            "%s: hook '%s' held the event loop for %.0f ms; use ctx.run_sync for blocking work",
            plugin,
            hook,
            seconds * 1000,
        )

    def _hide(self, text: str) -> str:
        """Return a text without the secrets of this home and the keys of attached servers."""
        return self.secrets.hide(self._hide_keys(text))

    def _launcher(self, **options: Any) -> Launcher:
        """Make what launches the workers of one service; the testing kit puts faults in here."""
        return Launcher(**options)
