"""The life of one service: a single task owns its state.

Callers say what they want and await the outcome; they never read the state and act on it. Every
message is handled without an await, so that nothing can come between an outcome and the state
that follows from it. What takes time runs in jobs (`_operations`), which end in a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._clock import now
from ._health import watch
from ._inside import Inside
from ._operations import Operations
from ._pool import WorkerPool
from ._streams import Streams
from .errors import (
    AIPlaygroundError,
    FailureClass,
    PluginError,
    ServiceFailed,
    ServiceNotAvailable,
)
from .events import ModelLoaded, ModelUnloaded, WebServiceExit
from .failures import describe_exit
from .states import (
    INSTALLATION,
    RUNTIME,
    Desired,
    Installation,
    Runtime,
    check_transition,
    is_set_up,
)
from .status import ServiceInfo

if TYPE_CHECKING:
    from ._attached import Attachment
    from ._host import Host
    from ._worker import Worker
    from .specs import BackendSpec

Waiter = asyncio.Future[None]

SETTLE = 0.1
"""Seconds from the end of an unload until a service without a worker is stopped."""

END_LIMIT = 2.0
"""Seconds that the tasks of a service may take to end once they are cancelled."""


class Service:
    """One backend as the kernel runs it."""

    def __init__(self, spec: BackendSpec, host: Host) -> None:
        self.spec = spec
        self.name = spec.name
        self.host = host
        self.log = host.logs.service(spec.name)
        self.streams = Streams()
        self.attachment = _attachment(spec.name, host)
        self.ops = Operations(self)
        self.inside = Inside(self.log.logger)
        self.pool = WorkerPool(spec, host, self.log, self._hear)
        self._installation = Installation.ABSENT
        self._runtime = Runtime.STOPPED
        self._desired = Desired.DOWN
        self._start_tried = False
        self._error: AIPlaygroundError | None = None
        self._start_waiters: list[Waiter] = []
        self._stop_waiters: list[Waiter] = []
        self._install_waiters: list[Waiter] = []
        self._job: asyncio.Task[None] | None = None
        self._install_job: asyncio.Task[None] | None = None
        self._removing = False
        self._primary_heard: Runtime | None = None
        self._wanted_model: str | None = None
        self._inbox: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._health_task: asyncio.Task[None] | None = None
        self._asking: set[Waiter] = set()
        self._closed = False
        self.started_at = 0.0

    # What the outside asks for ------------------------------------------------------------

    async def open(self) -> None:
        """Find out what is installed and begin to take messages."""
        try:
            there = await self.ops.look()
            self._installation = Installation.INSTALLED if there else Installation.ABSENT
        except AIPlaygroundError as error:
            self._installation, self._error = Installation.BROKEN, error
        self._task = asyncio.create_task(self._run(), name=f"service {self.name}")

    async def start(self, model: str | None = None) -> None:
        """Be running when this returns; raises why it is not."""
        if self._serves():
            return
        await self._ask(self._on_start, model)

    def _serves(self) -> bool:
        """Whether a start would change nothing: it runs, is meant to, and has no news to read."""
        return (
            self._runtime is Runtime.RUNNING
            and self._desired is Desired.UP
            and self._inbox.empty()
            and not self._closed
        )

    async def stop(self) -> None:
        """Be stopped when this returns; pre-empts a start in progress."""
        await self._ask(self._on_stop)

    async def set_up(self) -> None:
        """Install the engine, or bring an installed one up to date."""
        await self._ask(self._on_set_up)

    async def cancel_set_up(self) -> None:
        """End an installation in progress."""
        await self._ask(self._on_cancel_set_up)

    async def uninstall(self) -> None:
        """Stop the service and remove its engine."""
        await self.stop()
        await self._ask(self._on_uninstall)

    async def close(self) -> None:
        """Stop everything and end the task; the service is of no use afterwards."""
        if self._task is None or self._closed:
            await self._let_go()
            return
        self._closed = True  # from here on only what ends something is accepted
        try:
            await self._end(self._on_cancel_set_up)
            await self._end(self._on_stop)
        finally:
            await self._end_tasks()

    async def _end_tasks(self) -> None:
        """End the tasks: only the writer is left, unless the service did not stop in time."""
        for waiter in list(self._asking):
            if not waiter.done():
                waiter.set_exception(self._shut_down())
        tasks = (self._task, self._job, self._install_job, self._health_task)
        jobs = {each for each in tasks if each is not None}
        for job in jobs:
            job.cancel()
        # Before the workers are killed: theirs would restart what is killed.
        ending = asyncio.ensure_future(self.pool.end_all())
        self.pool.kill_now()
        await asyncio.wait({*jobs, ending}, timeout=END_LIMIT)
        await self.ops.residency.clear("stopped")
        await self._let_go()

    async def _let_go(self) -> None:
        if self.attachment is not None:
            await self.attachment.close()

    @property
    def runtime(self) -> Runtime:
        """What of it runs."""
        return self._runtime

    def info(self) -> ServiceInfo:
        """Where the service stands, as values."""
        primary = self.pool.primary
        running = primary is not None and self._runtime is Runtime.RUNNING
        port = primary.port if running and primary else (self.pool.planned_port or 0)
        base_url = self.inside.base_url or (f"http://127.0.0.1:{port}" if port else "")
        if self.inside.base_url is not None:
            port = urlsplit(base_url).port or 0
        if self.attachment is not None:
            base_url, port = self.attachment.base_url, self.attachment.port
        return ServiceInfo(
            name=self.name,
            title=self.spec.title,
            installation=self._installation,
            runtime=self._runtime,
            desired=self._desired,
            start_tried=self._start_tried,
            base_url=base_url,
            port=port,
            version=self.ops.version,
            required=self.spec.required,
            error=self._error.to_dict() if self._error else None,
            workers=tuple(worker.info for worker in self.pool.workers.values()),
            models=self.ops.residency.loaded,
            attached=self.attachment is not None,
        )

    # The single writer --------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            handle = await self._inbox.get()
            try:
                handle()
            except Exception as error:
                # A defect of ours must not end the writer: whoever waits would wait for ever.
                self.log.logger.exception("The service's task could not handle a message.")
                self._fail_all(error)

    async def _ask(self, handler: Callable[..., None], *args: Any) -> None:
        if self._closed or self._task is None:
            raise self._shut_down()
        await self._end(handler, *args)

    async def _end(self, handler: Callable[..., None], *args: Any) -> None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._asking.add(waiter)
        waiter.add_done_callback(self._asking.discard)
        self._post(handler, waiter, *args)
        await waiter

    def _shut_down(self) -> ServiceNotAvailable:
        return ServiceNotAvailable(f"{self.name}: the kernel is shut down or shutting down.")

    def _post(self, handler: Callable[..., None], *args: Any) -> None:
        self._inbox.put_nowait(partial(handler, *args))

    def _set_runtime(self, state: Runtime) -> None:
        self._runtime = check_transition(self.name, RUNTIME, self._runtime, state)
        self.log.logger.info("%s", state.value)
        self.host.announce(self.name)

    def _set_installation(self, state: Installation) -> None:
        self._installation = check_transition(self.name, INSTALLATION, self._installation, state)
        self.log.logger.info("%s", state.value)
        self.host.announce(self.name)

    def _settle(self, waiters: list[Waiter], error: BaseException | None = None) -> None:
        waiting, waiters[:] = waiters[:], []
        for waiter in waiting:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        failure = PluginError(f"{self.name}: {type(error).__name__}: {error}")
        for waiters in (self._start_waiters, self._stop_waiters, self._install_waiters):
            waiters.clear()
        self._settle(list(self._asking), failure)

    def _begin(
        self, work: Coroutine[Any, Any, None], then: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._post(then, done))
        return task

    # Start and stop -----------------------------------------------------------------------

    def _on_start(self, waiter: Waiter, model: str | None) -> None:
        if self._closed:
            self._settle([waiter], self._shut_down())
            return
        if self._install_job is None and not is_set_up(self._installation):
            self._settle([waiter], self._not_set_up())
            return
        self._desired = Desired.UP
        if self._runtime is Runtime.RUNNING:
            self._settle([waiter])
            return
        self._start_waiters.append(waiter)
        self._wanted_model = model
        if self._runtime is Runtime.BACKOFF and self.pool.primary is not None:
            self.pool.primary.retry_now()
        else:
            self._start_if_wanted()

    def _start_if_wanted(self) -> None:
        """Begin a start unless one is under way, or follows the stop or the installation."""
        if self._desired is not Desired.UP or not self._start_waiters:
            return
        if self._install_job is not None or self._runtime not in (Runtime.STOPPED, Runtime.FAILED):
            return
        if is_set_up(self._installation):
            self._begin_start()
        else:
            self._settle(self._start_waiters, self._not_set_up())

    def _not_set_up(self) -> ServiceNotAvailable:
        why = f" ({self._error.message})" if self._error else ""
        return ServiceNotAvailable(
            f"{self.name} is not set up{why}. Run: aipg setup {self.name}",
            details={"service": self.name},
        )

    def _begin_start(self) -> None:
        self._end_health_watch()
        self._start_tried = True
        self.started_at = now()
        self._error = None
        self._primary_heard = None
        self._set_runtime(Runtime.STARTING)
        self._job = self._begin(self.ops.start(self._wanted_model), self._on_started)

    def _on_started(self, job: asyncio.Task[None]) -> None:
        if job is not self._job or self._runtime is not Runtime.STARTING:
            return  # a stop came in between; it has dealt with this job
        self._job = None
        error = outcome(job)
        if error is not None:
            self._fail(error)
        else:
            # It may have crashed again by now, and what was heard of that is not said twice.
            heard = self._primary_heard if self.pool.primary is not None else None
            self._follow(heard or Runtime.RUNNING)
            if self.pool.primary is None:
                self._begin_health_watch()

    def _fail(self, error: AIPlaygroundError) -> None:
        self._error = error
        self._set_runtime(Runtime.FAILED)
        self._settle(self._start_waiters, error)

    def _on_stop(self, waiter: Waiter) -> None:
        self._desired = Desired.DOWN
        if self._installation is not Installation.BROKEN:
            self._error = None
        self._settle(
            self._start_waiters,
            ServiceNotAvailable(f"{self.name} was stopped.", details={"service": self.name}),
        )
        if self._runtime is Runtime.STOPPED:
            self._settle([waiter])
            return
        self._stop_waiters.append(waiter)
        if self._runtime is not Runtime.STOPPING:
            self._begin_stop()

    def _begin_stop(self) -> None:
        self._end_health_watch()
        started = self._job
        self._set_runtime(Runtime.STOPPING)
        self._job = self._begin(self.ops.stop(started), self._on_stopped)

    def _on_stopped(self, job: asyncio.Task[None]) -> None:
        self._job = None
        error = outcome(job)
        if error is not None:
            self._error = error
        self._set_runtime(Runtime.STOPPED)
        self._settle(self._stop_waiters)
        self._start_if_wanted()

    # Workers ------------------------------------------------------------------------------

    def _hear(self, worker: Worker, state: Runtime, exit_code: int | None) -> None:
        """Hear of a worker's change of state; called by the worker's task."""
        self._post(self._on_worker, worker, state, exit_code)

    def _on_worker(self, worker: Worker, state: Runtime, exit_code: int | None) -> None:
        if not self.pool.has(worker):
            return
        if exit_code is not None:
            self._on_exit(worker, exit_code)
        if state is Runtime.RUNNING and worker.model is not None:
            self.ops.residency.adopt(worker.model)
        if state is Runtime.FAILED and worker.attached:
            self.ops.residency.drop(self.ops.residency.loaded, "crashed")
            self.log.logger.warning("%s", worker.error.message if worker.error else "it is away")
        if worker.primary:
            self._primary_heard = state
        if worker.primary and self._job is None:
            self._follow(state)
        else:
            self.host.announce(self.name)

    def _on_exit(self, worker: Worker, exit_code: int) -> None:
        message = worker.error.message if worker.error else describe_exit(exit_code)
        self.log.logger.warning("%s", message)
        self.ops.forget_models_of(worker)
        self.host.bus.publish(
            WebServiceExit(
                service=self.name, worker=worker.name, exit_code=exit_code, message=message
            )
        )

    def _follow(self, state: Runtime) -> None:
        """The primary worker decides whether the service runs."""
        primary = self.pool.primary
        error = primary.error if primary is not None else None
        if state is Runtime.FAILED:
            self._fail(error or ServiceNotAvailable(f"{self.name}: it gave up."))
        elif state in (Runtime.BACKOFF, Runtime.STARTING):
            self._error = error
            if self._runtime is Runtime.RUNNING and state is Runtime.STARTING:
                self._set_runtime(Runtime.BACKOFF)  # the plugin replaces its primary worker
            if self._runtime is not state:
                self._set_runtime(state)
        elif state is Runtime.RUNNING:
            self._error = None
            if self._runtime is not state:
                self._set_runtime(state)
            self._settle(self._start_waiters)

    def worker_ended(self) -> None:
        """Hear that the plugin has ended a worker."""
        if not self.ops.residency.moving:  # else `models_moved` follows
            self._post(self._on_ended, "its plugin ended its primary worker and launched no other")

    def models_moved(self) -> None:
        """Hear that a load or an unload is over."""
        # Not at once: a request that waited for the unload begins its own load first.
        asyncio.get_running_loop().call_later(SETTLE, self._post, self._on_moved)

    def _left_headless(self) -> bool:
        """Whether the primary worker was ended, no other stands in, and none follows for now."""
        if self._job is not None or self._primary_heard is None or self.pool.primary is not None:
            return False
        if self._runtime not in (Runtime.RUNNING, Runtime.STARTING, Runtime.BACKOFF):
            return False
        if self.pool.promote() is not None:
            self.host.announce(self.name)
            return False
        return not self.ops.residency.moving

    def _on_moved(self) -> None:
        if self._left_headless():
            # The program cannot be without a model, and its last one was unloaded.
            self._desired, self._error = Desired.DOWN, None
            self._begin_stop()

    def _on_ended(self, why: str) -> None:
        if self._runtime is Runtime.RUNNING and self._left_headless():
            self._error = ServiceFailed(
                f"{self.name}: {why}.",
                failure=FailureClass.PLUGIN,
                details={"service": self.name},
            )
            self._set_runtime(Runtime.BACKOFF)
            loop = asyncio.get_running_loop()
            loop.call_later(self.pool.start_timeout, self._post, self._on_still_headless)

    def _on_still_headless(self) -> None:
        if self._error is not None and self._left_headless():
            self._fail(self._error)

    # Health of a backend without workers ------------------------------------------------

    def _begin_health_watch(self) -> None:
        if self.ops.find("health") is not None:
            settings = self.host.settings.liveness
            tell = partial(self._post, self._on_health)
            work = watch(self.name, self.ops.health, settings, tell)
            self._health_task = asyncio.create_task(work, name=f"health {self.name}")

    def _end_health_watch(self) -> None:
        if self._health_task is not None:
            self._health_task.cancel()
            self._health_task = None

    def _on_health(self, error: ServiceFailed | None) -> None:
        if self._health_task is None or self._job is not None or self.pool.primary is not None:
            return  # told before a stop, a start or a worker, which knows better
        if error is not None and self._runtime is Runtime.RUNNING:
            self.log.logger.warning("%s", error.message)
            self._fail(error)
        elif error is None and self._runtime is Runtime.FAILED:
            self._set_runtime(Runtime.STARTING)
            self._follow(Runtime.RUNNING)

    def model_changed(self, model: str, reason: str | None) -> None:
        """Tell the outside that a model came into memory, or left it for a reason."""
        self.log.logger.info("%s %s", model, f"unloaded ({reason})" if reason else "loaded")
        if reason is not None:
            self.host.admission.forget(self.name, model)
        if reason is None:
            self.host.bus.publish(ModelLoaded(service=self.name, model=model))
        else:
            self.host.bus.publish(ModelUnloaded(service=self.name, model=model, reason=reason))

    # Installation -------------------------------------------------------------------------

    def _on_set_up(self, waiter: Waiter) -> None:
        if self._closed or (self._install_job is not None and self._removing):
            self._settle([waiter], self._shut_down() if self._closed else self._busy("removed"))
            return
        self._install_waiters.append(waiter)
        if self._install_job is not None:
            return
        upgrade = self._installation is Installation.INSTALLED
        self._set_installation(Installation.UPGRADING if upgrade else Installation.INSTALLING)
        self._install_job = self._begin(self.ops.set_up(), self._on_set_up_done)

    def _on_cancel_set_up(self, waiter: Waiter) -> None:
        if self._install_job is None or (self._removing and not self._closed):
            self._settle([waiter])
            return
        self._install_job.cancel()
        done = self._install_job
        done.add_done_callback(lambda _: self._post(self._settle, [waiter]))

    def _on_set_up_done(self, job: asyncio.Task[None]) -> None:
        self._install_job = None
        error = outcome(job)
        self._error = None if job.cancelled() else error
        if self._error is not None:
            self.log.logger.error("The set-up failed: %s", self._error.message, exc_info=error)
        self._set_installation(self._after_set_up(error, cancelled=job.cancelled()))
        self._settle(self._install_waiters, error)
        self._start_if_wanted()

    def _after_set_up(self, error: BaseException | None, *, cancelled: bool) -> Installation:
        if error is None or (self.ops.installed and self._installation is Installation.UPGRADING):
            return Installation.INSTALLED
        if cancelled and self._installation is Installation.INSTALLING:
            return Installation.ABSENT
        return Installation.BROKEN

    def _on_uninstall(self, waiter: Waiter) -> None:
        if self._closed or (self._install_job is not None and not self._removing):
            self._settle([waiter], self._shut_down() if self._closed else self._busy("set up"))
            return
        if self._runtime is not Runtime.STOPPED:
            self._settle([waiter], self._busy("started"))
            return
        self._install_waiters.append(waiter)
        if self._install_job is None:
            self._removing = True
            self._install_job = self._begin(self.ops.uninstall(), self._on_uninstalled)

    def _busy(self, doing: str) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"{self.name} is being {doing}. Wait for that to end, then try again.",
            details={"service": self.name},
        )

    def _on_uninstalled(self, job: asyncio.Task[None]) -> None:
        self._install_job = None
        self._removing = False
        error = outcome(job)
        self._error = error
        if not self.ops.installed and self._installation is not Installation.ABSENT:
            self._set_installation(Installation.ABSENT)
        self._settle(self._install_waiters, error)
        self._start_if_wanted()


def outcome(job: asyncio.Task[None]) -> AIPlaygroundError | None:
    """Return what a job failed with, as an error of ours."""
    if job.cancelled():
        return ServiceNotAvailable("The operation was cancelled.")
    error = job.exception()
    if error is None or isinstance(error, AIPlaygroundError):
        return error
    return PluginError(f"{type(error).__name__}: {error}")


def _attachment(service: str, host: Host) -> Attachment | None:
    settings = host.settings.attachment(service)
    if settings is None:
        return None
    from ._attached import Attachment  # an HTTP client is not for kernels without any

    return Attachment(service, settings, host.settings.timeouts.health)
