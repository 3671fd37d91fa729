"""What a service does: the effects behind its states.

Each operation calls the backend's hooks through the router, with the middleware around it and the
kernel's deadline outside. None of them writes the service's state; `_supervisor` and `_installer`
do, from how they end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ._context import Context
from ._health import unhealthy
from ._residency import Residency
from ._steps import going_on
from .errors import (
    AIPlaygroundError,
    FailureClass,
    PluginError,
    ServiceFailed,
    ServiceNotAvailable,
)
from .events import ServiceSetUpProgress
from .middleware import LifecycleCall, Operation, compose_lifecycle
from .specs import Health, MemoryEstimate
from .states import Runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._router import Route
    from ._service import Service
    from ._worker import Worker
    from .types import ModelInfo

START_PATIENCE = 10
"""A start may take this many times its time-out in all, however much progress it shows."""


class Operations:
    """The operations of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._host = service.host
        self._timeouts = service.host.settings.timeouts
        self.version: str | None = None
        self.installed = False

    # What the service is made of ----------------------------------------------------------

    @cached_property
    def settings(self) -> Any:
        """The backend's settings, validated on first use; raises `InvalidSettings`."""
        from .settings import service_settings

        return service_settings(self._host.layers, self._service.spec)

    @cached_property
    def residency(self) -> Residency:
        """Which models are in memory."""
        settings = self._host.settings.residency
        # What an endpoint keeps in memory is its own affair.
        attached = self._service.attachment is not None
        return Residency(
            self._service.name,
            load=self._load,
            unload=self._unload,
            changed=self._service.model_changed,
            limit=sys.maxsize if attached else settings.max_models,
            idle_timeout=0 if attached else settings.idle_timeout,
            patience=self._timeouts.load,
            pinned=settings.pinned,
            admit=None if attached else self._admit,
            forget=self._not_loaded,
        )

    def find(self, hook: str) -> Route | None:
        """Return the backend's own hook, else the kernel's default for it."""
        return self._host.router.find(self._service.name, hook)

    # Lifecycle ----------------------------------------------------------------------------

    async def look(self) -> bool:
        """Find out whether the engine is installed, and its version; raises if it is broken."""
        if self._service.attachment is not None:
            await self._service.attachment.open()
        route = self.find("installed_version")
        if route is None:
            # Without a set-up of its own, the package is the engine.
            self.installed = self.installed or self.find("setup") is None
            return self.installed
        version = await self._call(route, self._timeouts.hook, Context(self._service))
        self.installed, self.version = version is not None, version or None
        return self.installed

    async def start(self, model: str | None) -> None:
        """Bring the backend up; what was launched is ended again when that fails."""
        await self._take_down()
        if model is not None:
            await self._host.admission.admit(self._service.name, model)
        try:
            await self._through("start", partial(self._start, Context(self._service, model)))
        except BaseException:
            if not self._service.pool.watching:
                await self._take_down()
            raise
        finally:
            if model is not None and not self._holds(model):
                self._host.admission.forget(self._service.name, model)

    def _holds(self, model: str) -> bool:
        """Whether a worker came up with a model; one that others load later is admitted then."""
        workers = self._service.pool.workers.values()
        return any(model in (each.model, each.spec.model) for each in workers)

    async def _take_down(self) -> None:
        try:
            await self._service.inside.close(self._timeouts.hook)
            await self._service.pool.end_all()
        finally:
            await self.residency.clear("stopped")

    async def _start(self, ctx: Context) -> None:
        route = self.find("start")
        if self._service.attachment is not None:
            await self._service.pool.attach(self._service.attachment)
        elif route is not None:
            await self._call(route, self._service.pool.start_timeout * START_PATIENCE, ctx)
        if (primary := self._service.pool.primary) is not None:
            # It may have crashed while the hook was still busy with another worker.
            async with self._deadline("start", self._service.pool.start_timeout):
                await primary.ready()
        if self._service.attachment is not None or self.find("health") is None:
            return  # an endpoint has just been asked
        answer = await self.health()
        if answer is not None and not answer.ok:
            raise unhealthy(self._service.name, answer, "came up, but is not healthy")

    async def stop(self, started: asyncio.Task[None] | None) -> None:
        """End a start in progress, the answers in progress, and every worker."""
        if started is not None:
            started.cancel()
            await asyncio.wait({started}, timeout=self._timeouts.hook)
        # Before the streams: from here on no request finds a model that it could use.
        await self.residency.clear("stopped")
        self._service.streams.abort(self._stopped_under_request)
        try:
            if (route := self.find("stop")) is not None:
                await self._through("stop", partial(self._stop, route))
        finally:
            await self._take_down()

    async def _stop(self, route: Route) -> None:
        await self._call(route, self._timeouts.hook, Context(self._service))

    def _stopped_under_request(self) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"{self._service.name} was stopped while it answered.",
            details={"service": self._service.name},
        )

    async def set_up(self) -> None:
        """Install or upgrade, publishing progress; verified by asking for the version."""
        route = self.find("setup")
        try:
            if route is not None:
                await self._through("setup", partial(self._set_up, route))
                self.installed = True
        finally:
            await self.look()
        if not self.installed:
            raise ServiceNotAvailable(
                f"{self._service.name}: its engine is not installed, and the plugin cannot install "
                f"it. Install the plugin's package again, with its dependencies.",
                details={"service": self._service.name},
            )

    async def _set_up(self, route: Route) -> None:
        async with (
            self._deadline("setup", self._timeouts.setup or None),
            aclosing(route.stream(Context(self._service))) as steps,
        ):
            async for step in steps:
                self._service.log.logger.info("%s %.0f %% %s", *_step(step))
                self._host.bus.publish(
                    ServiceSetUpProgress(
                        service=self._service.name,
                        stage=step.stage,
                        progress=step.progress,
                        message=step.message,
                    )
                )

    async def uninstall(self) -> None:
        """Remove the engine."""
        route = self.find("uninstall")
        if self._service.attachment is not None:
            raise ServiceNotAvailable(
                f"{self._service.name} is attached to {self._service.attachment.base_url}: "
                f"nothing of it was installed here.",
                details={"service": self._service.name},
            )
        if route is None:
            raise ServiceNotAvailable(
                f"{self._service.name} has nothing to remove but its package: "
                f"uninstall that with the tool that installed it.",
                details={"service": self._service.name},
            )
        limit = self._timeouts.setup or None
        run = partial(self._call, route, limit, Context(self._service))
        await self._through("uninstall", run)
        self.installed = False
        await self.look()

    async def list_models(self) -> Sequence[ModelInfo]:
        """Ask the backend what it can serve; nothing if it has no way to say."""
        from .types import ModelInfo

        route = self.find("list_models")
        if route is None:
            return []
        models = await self._call(route, self._timeouts.hook, Context(self._service))
        if not isinstance(models, Sequence) or not all(isinstance(m, ModelInfo) for m in models):
            raise route.wrong("a list of ModelInfo", models)
        return models

    async def health(self) -> Health | None:
        """Ask the backend how it is; None if it has no way to say."""
        route = self.find("health")
        if route is None:
            return None
        answer = await self._call(route, self._timeouts.hook, Context(self._service))
        if not isinstance(answer, Health):
            raise route.wrong("a Health", answer)
        return replace(answer, detail=self._host.hide(answer.detail))

    # Models -------------------------------------------------------------------------------

    async def _admit(self, model: str) -> None:
        await self._host.admission.admit(self._service.name, model)

    def _not_loaded(self, model: str) -> None:
        self._host.admission.forget(self._service.name, model)
        # What made room for it may have left the service without a worker.
        self._service.supervisor.models_moved()

    async def estimate(self, model: str) -> MemoryEstimate | None:
        """Ask the backend what a model will take in memory."""
        route = self.find("estimate_memory")
        if route is None:
            return None
        answer = await self._call(route, self._timeouts.hook, Context(self._service), model)
        if answer is not None and not isinstance(answer, MemoryEstimate):
            raise route.wrong("a MemoryEstimate", answer)
        return answer

    async def release(self, model: str, wanted: int) -> int:
        """Ask the backend for memory that a model can do without; return the bytes."""
        route = self.find("release_memory")
        if route is None:
            return 0
        ctx = Context(self._service)
        given = await self._call(route, self._timeouts.hook, ctx, model, wanted)
        if not isinstance(given, int):
            raise route.wrong("a number of bytes", given)
        return given

    async def _load(self, model: str) -> None:
        if self._service.runtime is not Runtime.RUNNING:
            # A stop or a crash came between the start that this load waited for and its turn.
            raise ServiceNotAvailable(
                f"{self._service.name} does not run any more. Try again.",
                details={"service": self._service.name},
            )
        try:
            await self._model_hook("load_model", model, self._timeouts.load)
        finally:
            self._service.supervisor.models_moved()

    async def _unload(self, model: str) -> None:
        try:
            await self._model_hook("unload_model", model, self._timeouts.hook)
        except AIPlaygroundError:
            self._service.log.logger.exception("%s could not be unloaded", model)
            raise
        finally:
            self._service.supervisor.models_moved()

    async def _model_hook(self, hook: Operation, model: str, timeout: float) -> None:
        route = self.find(hook)
        if route is None:
            return
        run = partial(self._call, route, timeout, Context(self._service), model)
        await self._through(hook, run, model)

    def forget_models_of(self, worker: Worker) -> None:
        """Drop what a worker held that went away."""
        held = self.residency.loaded
        mine = {worker.spec.model, worker.lost_model}
        self.residency.drop([model for model in held if model in mine], "crashed")

    async def endpoint(self, model: str | None) -> str:
        """Return the base URL of the worker that serves a model."""
        if self._service.attachment is not None:
            return self._service.attachment.base_url
        route = self._host.router.find(self._service.name, "endpoint")
        if route is None:
            return self._service.pool.holder(model).base_url
        url: str = await self._call(route, self._timeouts.hook, Context(self._service), model)
        return url

    # Plumbing -----------------------------------------------------------------------------

    async def _through(
        self, operation: Operation, run: Callable[[], Awaitable[None]], model: str | None = None
    ) -> None:
        call = LifecycleCall(self._service.name, operation, model)
        await compose_lifecycle(self._host.middleware, call, run)()

    async def _call(self, route: Route, seconds: float | None, *args: Any) -> Any:
        """Await a hook within its deadline; a defect goes to the log with its traceback."""
        steps: Any = route.call(*args)
        try:
            # Most hooks have no second step: a deadline is set only for those that wait.
            try:
                waiting_for = steps.send(None)
            except StopIteration as done:
                return done.value
            async with self._deadline(route.hook, seconds):
                return await going_on(steps, waiting_for)
        except PluginError as error:
            self._service.log.logger.error("%s", error.message, exc_info=error)
            raise

    def _deadline(self, hook: str, seconds: float | None) -> _Deadline:
        return _Deadline(self._service.name, hook, seconds)


class _Deadline:
    """`asyncio.timeout` whose expiry is an error of ours that names the hook."""

    def __init__(self, service: str, hook: str, seconds: float | None) -> None:
        self._what = (service, hook, seconds)
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        service, hook, seconds = self._what
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise ServiceFailed(
                f"{service}: its hook '{hook}' did not end within {seconds:.0f} s.",
                failure=FailureClass.TIMEOUT,
                details={"service": service, "hook": hook},
            ) from late


def _step(step: Any) -> tuple[str, float, str]:
    return step.stage, step.progress, step.message
