"""What of one service runs: the second of its two state machines.

Its methods named `on_…` are messages to the service's actor. The primary worker's reports become
the service's state; a service without workers is asked how it is.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ._actor import Actor, Waiter, outcome, settle
from ._clock import now
from ._health import watch
from .errors import AIPlaygroundError, FailureClass, ServiceFailed, ServiceNotAvailable
from .events import WebServiceExit
from .failures import describe_exit
from .states import Desired, Installation, Runtime, is_set_up

if TYPE_CHECKING:
    from ._service import Service
    from ._worker import Worker

SETTLE = 0.1
"""Seconds from the end of an unload until a service without a worker is stopped."""

REPLACED = "its plugin ended its primary worker and launched no other"


class Supervisor:
    """Starts and stops one service, and follows its primary worker."""

    def __init__(self, service: Service, actor: Actor) -> None:
        self.job: asyncio.Task[None] | None = None
        self.health_task: asyncio.Task[None] | None = None
        self.started_at = 0.0
        self._service = service
        self._state = service.state
        self._actor = actor
        self._starting = actor.waiters()
        self._stopping = actor.waiters()
        self._primary_heard: Runtime | None = None
        self._wanted_model: str | None = None

    @property
    def serves(self) -> bool:
        """Whether a start would change nothing: it runs, is meant to, and has no news to read."""
        return (
            self._state.runtime is Runtime.RUNNING
            and self._state.desired is Desired.UP
            and self._actor.idle
            and not self._actor.closed
        )

    # Start and stop -----------------------------------------------------------------------

    def on_start(self, waiter: Waiter, model: str | None) -> None:
        """Be running; with `model` in memory, if the start is what loads it."""
        if self._actor.closed:
            settle(waiter, self._actor.shut_down())
            return
        if not self._service.installer.busy and not is_set_up(self._state.installation):
            settle(waiter, self._state.not_set_up())
            return
        self._state.desired = Desired.UP
        if self._state.runtime is Runtime.RUNNING:
            settle(waiter)
            return
        self._starting.add(waiter)
        self._wanted_model = model
        if self._state.runtime is Runtime.BACKOFF and self._service.pool.primary is not None:
            self._service.pool.primary.retry_now()
        else:
            self.start_if_wanted()

    def start_if_wanted(self) -> None:
        """Begin a start unless one is under way, or follows the stop or the installation."""
        if self._state.desired is not Desired.UP or not self._starting:
            return
        at_rest = self._state.runtime in (Runtime.STOPPED, Runtime.FAILED)
        if self._service.installer.busy or not at_rest:
            return
        if is_set_up(self._state.installation):
            self._begin_start()
        else:
            self._starting.settle(self._state.not_set_up())

    def _begin_start(self) -> None:
        self._end_health_watch()
        self._state.start_tried = True
        self.started_at = now()
        self._state.error = None
        self._primary_heard = None
        self._state.set_runtime(Runtime.STARTING)
        self.job = self._actor.begin(self._service.ops.start(self._wanted_model), self._on_started)

    def _on_started(self, job: asyncio.Task[None]) -> None:
        if job is not self.job or self._state.runtime is not Runtime.STARTING:
            return  # a stop came in between; it has dealt with this job
        self.job = None
        error = outcome(job)
        if error is not None:
            self._fail(error)
        else:
            # It may have crashed again by now, and what was heard of that is not said twice.
            heard = self._primary_heard if self._service.pool.primary is not None else None
            self._follow(heard or Runtime.RUNNING)
            if self._service.pool.primary is None:
                self._begin_health_watch()

    def _fail(self, error: AIPlaygroundError) -> None:
        self._state.error = error
        self._state.set_runtime(Runtime.FAILED)
        self._starting.settle(error)

    def on_stop(self, waiter: Waiter) -> None:
        """Be stopped; pre-empts a start in progress."""
        name = self._state.name
        self._state.desired = Desired.DOWN
        if self._state.installation is not Installation.BROKEN:
            self._state.error = None
        self._starting.settle(
            ServiceNotAvailable(f"{name} was stopped.", details={"service": name})
        )
        if self._state.runtime is Runtime.STOPPED:
            settle(waiter)
            return
        self._stopping.add(waiter)
        if self._state.runtime is not Runtime.STOPPING:
            self._begin_stop()

    def _begin_stop(self) -> None:
        self._end_health_watch()
        started = self.job
        self._state.set_runtime(Runtime.STOPPING)
        self.job = self._actor.begin(self._service.ops.stop(started), self._on_stopped)

    def _on_stopped(self, job: asyncio.Task[None]) -> None:
        self.job = None
        error = outcome(job)
        if error is not None:
            self._state.error = error
        self._state.set_runtime(Runtime.STOPPED)
        self._stopping.settle()
        self.start_if_wanted()

    # Workers ------------------------------------------------------------------------------

    def hear(self, worker: Worker, state: Runtime, exit_code: int | None) -> None:
        """Hear of a worker's change of state; called by the worker's task."""
        self._actor.post(self._on_worker, worker, state, exit_code)

    def _on_worker(self, worker: Worker, state: Runtime, exit_code: int | None) -> None:
        if not self._service.pool.has(worker):
            return
        residency = self._service.ops.residency
        if exit_code is not None:
            self._on_exit(worker, exit_code)
        if state is Runtime.RUNNING and worker.model is not None:
            residency.adopt(worker.model)
        if state is Runtime.FAILED and worker.attached:
            residency.drop(residency.loaded, "crashed")
            self._warn(worker.error.message if worker.error else "it is away")
        if worker.primary:
            self._primary_heard = state
        if worker.primary and self.job is None:
            self._follow(state)
        else:
            self._state.announce(self._state.name)

    def _on_exit(self, worker: Worker, exit_code: int) -> None:
        message = worker.error.message if worker.error else describe_exit(exit_code)
        self._warn(message)
        self._service.ops.forget_models_of(worker)
        self._service.host.bus.publish(
            WebServiceExit(
                service=self._state.name, worker=worker.name, exit_code=exit_code, message=message
            )
        )

    def _warn(self, message: str) -> None:
        self._service.log.logger.warning("%s", message)

    def _follow(self, state: Runtime) -> None:
        """The primary worker decides whether the service runs."""
        primary = self._service.pool.primary
        error = primary.error if primary is not None else None
        if state is Runtime.FAILED:
            self._fail(error or ServiceNotAvailable(f"{self._state.name}: it gave up."))
        elif state in (Runtime.BACKOFF, Runtime.STARTING):
            self._state.error = error
            if self._state.runtime is Runtime.RUNNING and state is Runtime.STARTING:
                # The plugin replaces its primary worker.
                self._state.set_runtime(Runtime.BACKOFF)
            self._become(state)
        elif state is Runtime.RUNNING:
            self._state.error = None
            self._become(state)
            self._starting.settle()

    def _become(self, state: Runtime) -> None:
        if self._state.runtime is not state:
            self._state.set_runtime(state)

    # Without a primary worker -------------------------------------------------------------

    def worker_ended(self) -> None:
        """Hear that the plugin has ended a worker."""
        if not self._service.ops.residency.moving:  # else `models_moved` follows
            self._actor.post(self._on_ended)

    def models_moved(self) -> None:
        """Hear that a load or an unload is over."""
        # Not at once: a request that waited for the unload begins its own load first.
        asyncio.get_running_loop().call_later(SETTLE, self._actor.post, self._on_moved)

    def _left_headless(self) -> bool:
        """Whether the primary worker was ended, no other stands in, and none follows for now."""
        pool = self._service.pool
        if self.job is not None or self._primary_heard is None or pool.primary is not None:
            return False
        if self._state.runtime not in (Runtime.RUNNING, Runtime.STARTING, Runtime.BACKOFF):
            return False
        if pool.promote() is not None:
            self._state.announce(self._state.name)
            return False
        return not self._service.ops.residency.moving

    def _on_moved(self) -> None:
        if self._left_headless():
            # The program cannot be without a model, and its last one was unloaded.
            self._state.desired, self._state.error = Desired.DOWN, None
            self._begin_stop()

    def _on_ended(self) -> None:
        if self._state.runtime is not Runtime.RUNNING or not self._left_headless():
            return
        name = self._state.name
        self._state.error = ServiceFailed(
            f"{name}: {REPLACED}.", failure=FailureClass.PLUGIN, details={"service": name}
        )
        self._state.set_runtime(Runtime.BACKOFF)
        limit = self._service.pool.start_timeout
        asyncio.get_running_loop().call_later(limit, self._actor.post, self._on_still_headless)

    def _on_still_headless(self) -> None:
        if self._state.error is not None and self._left_headless():
            self._fail(self._state.error)

    # Health of a backend without workers --------------------------------------------------

    def _begin_health_watch(self) -> None:
        ops = self._service.ops
        if ops.find("health") is not None:
            settings = self._service.host.settings.liveness
            tell = partial(self._actor.post, self._on_health)
            work = watch(self._state.name, ops.health, settings, tell)
            self.health_task = asyncio.create_task(work, name=f"health {self._state.name}")

    def _end_health_watch(self) -> None:
        if self.health_task is not None:
            self.health_task.cancel()
            self.health_task = None

    def _on_health(self, error: ServiceFailed | None) -> None:
        has_worker = self._service.pool.primary is not None
        if self.health_task is None or self.job is not None or has_worker:
            return  # told before a stop, a start or a worker, which knows better
        if error is not None and self._state.runtime is Runtime.RUNNING:
            self._warn(error.message)
            self._fail(error)
        elif error is None and self._state.runtime is Runtime.FAILED:
            self._state.set_runtime(Runtime.STARTING)
            self._follow(Runtime.RUNNING)
