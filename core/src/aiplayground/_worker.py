"""One worker of a service: its own task launches, watches and restarts it.

The task is the only writer of the worker's state; the service hears of each change in order.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from ._clock import now, wall
from .errors import FailureClass, NotEnoughMemory, ServiceFailed, ServiceNotAvailable
from .policy import Liveness, RestartPolicy
from .states import RUNTIME, Runtime, check_transition
from .status import WorkerInfo

if TYPE_CHECKING:
    from ._launch import Launched, Launcher
    from .specs import LaunchSpec

Report = Callable[["Worker", Runtime, int | None], None]

Claim = Callable[[str | None], AbstractAsyncContextManager[None]]
"""Has memory promised to the model that a launch names; raises `NotEnoughMemory`."""

LOSS_WAIT = 2.0
"""Seconds to wait for a worker's exit after a connection to it broke."""


class Worker:
    """A supervised worker process; `WorkerHandle` is what plugins see of it.

    `primary`: it decides that the service runs; the pool may hand that on. `liveness` is the probe
    interval and limit in seconds, and the factor after which not even activity helps.
    `report(worker, state, exit_code)` is called on each change of state; `exit_code` is set when
    the process went away and nobody had asked it to. `claim` is entered for each launch.
    """

    attached = False
    """Whether it is an endpoint that somebody else runs."""

    def __init__(
        self,
        spec: LaunchSpec,
        launcher: Launcher,
        restart: RestartPolicy,
        liveness: tuple[float, float, float],
        report: Report,
        claim: Claim = lambda _: nullcontext(),
    ) -> None:
        self.spec = spec
        self.primary = spec.primary
        self.model = spec.model
        self.lost_model: str | None = None
        self.token = secrets.token_hex(16)
        self.state = Runtime.STOPPED
        self.error: ServiceFailed | None = None
        self.restarts = 0
        self._launcher = launcher
        self._restart = restart
        self._probe_interval, self._probe_limit, self._patience = liveness
        self._report = report
        self._claim = claim
        self._launched: Launched | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._skip_wait = asyncio.Event()
        self._ending = False
        self._running_since: float | None = None

    @property
    def name(self) -> str:
        """The name that its `LaunchSpec` gave it."""
        return self.spec.name

    @property
    def base_url(self) -> str:
        """Where it answers now; empty before the first launch."""
        return self._launched.base_url if self._launched else ""

    @property
    def port(self) -> int:
        """The port it has now; 0 before the first launch."""
        return self._launched.port if self._launched else 0

    @property
    def pid(self) -> int | None:
        """The process id while a process is there."""
        process = self._launched.process if self._launched else None
        return process.pid if process is not None and process.returncode is None else None

    @property
    def info(self) -> WorkerInfo:
        """Where it stands, as values."""
        return WorkerInfo(
            name=self.name,
            state=self.state,
            primary=self.primary,
            model=self.model,
            base_url=self.base_url,
            pid=self.pid,
            restarts=self.restarts,
            error=self.error.message if self.error else None,
            attached=self.attached,
        )

    def launch(self) -> None:
        """Begin the worker's life; `ready` waits for it."""
        self._task = asyncio.create_task(self._run(), name=f"worker {self.name}")
        # Also when it is cancelled before its first step, or by a defect: nobody waits for ever.
        self._task.add_done_callback(lambda _: self._tell_changed())

    async def ready(self) -> None:
        """Wait until the worker answers; raise why it does not when it gave up."""
        while self.state is not Runtime.RUNNING:
            if self.state is Runtime.FAILED and self.error is not None:
                raise self.error
            if self._task is None or self._task.done():
                raise ServiceNotAvailable(f"The worker '{self.name}' was stopped.")
            await self._next_change()

    async def loss(self) -> ServiceFailed | None:
        """After a broken connection: return why the worker went, None if it is still there."""
        deadline = now() + LOSS_WAIT
        while self.state is Runtime.RUNNING and (left := deadline - now()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._next_change()
            except TimeoutError:
                return None
        return self.error

    def retry_now(self) -> None:
        """Cut a backoff short."""
        self._skip_wait.set()

    async def end(self) -> None:
        """End the process and all that it started; returns when they are gone.

        Any number of callers share one ending, and it goes on when one of them is cancelled.
        """
        task = self._task
        if task is None:
            return
        if not self._ending:
            self._ending = True
            task.cancel()
        await asyncio.wait({task})
        if self._launched is not None:
            # The cancellation may have come while the task itself was ending the process.
            await self._launched.process.end(self._launcher.grace)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def kill_now(self) -> None:
        """End the process at once, without the event loop."""
        if self._launched is not None:
            self._launched.process.kill_now()

    async def _next_change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._changed.append(waiter)
        await waiter

    def _set(self, state: Runtime, exit_code: int | None = None) -> None:
        self.state = check_transition(self.name, RUNTIME, self.state, state)
        self._tell_changed()
        self._report(self, state, exit_code)

    def _tell_changed(self) -> None:
        waiting, self._changed = self._changed, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _run(self) -> None:
        failures = 0
        try:
            while True:
                first = self.restarts == 0
                exit_code = await self._live()
                if first and self.state is Runtime.STARTING:
                    # The first launch failed: whoever asked for it decides what comes next.
                    self._set(Runtime.FAILED)
                    return
                # It comes back with what its launch names, whatever it had loaded since.
                self.lost_model, self.model = self.model, self.spec.model
                failures = self._restart.count(failures, self._ran_for())
                delay = self._restart.delay(failures, random.random())
                if delay is None:
                    self._set(Runtime.FAILED, exit_code)
                    return
                self.restarts += 1
                self._set(Runtime.BACKOFF, exit_code)
                await self._pause(delay)
        except TimeoutError as error:  # even SIGKILL did not end the process
            self.error = self._defect(error)
            self._set(Runtime.FAILED)
        finally:
            self._stopped()

    def _stopped(self) -> None:
        if self.state in (Runtime.FAILED, Runtime.STOPPED):
            return
        if self.state is not Runtime.STOPPING:
            self._set(Runtime.STOPPING)
        self._set(Runtime.STOPPED)

    def _ran_for(self) -> float:
        """How long it was ready, in seconds: a long way up is no sign of stability."""
        since = self._running_since
        return now() - since if since is not None else 0.0

    async def _pause(self, delay: float) -> None:
        self._skip_wait.clear()
        try:
            async with asyncio.timeout(delay):
                await self._skip_wait.wait()
        except TimeoutError:
            pass  # the usual case: nobody cut the backoff short

    async def _live(self) -> int | None:
        """Launch, wait until ready, watch until gone; return the exit code, `error` says why."""
        self._running_since = None
        self._set(Runtime.STARTING)
        launched: Launched | None = None

        def started(process: Launched) -> None:
            nonlocal launched
            launched = self._launched = process

        try:
            # A restart, too: while it was away, others may have taken its memory.
            async with self._claim(self.spec.model):
                launched = await self._launcher.bring_up(self.spec, self.token, started)
            self.error = None
            self._running_since = now()
            self._set(Runtime.RUNNING)
            self.error = await self._watch(launched)
        except ServiceFailed as error:
            self.error = error
        except NotEnoughMemory as error:
            self.error = _no_memory(error)
        except Exception as error:  # noqa: BLE001  # a worker that is not watched must not seem to run
            self.error = self._defect(error)
        finally:
            if launched is not None:
                self._launcher.forget(launched)
                await launched.process.end(self._launcher.grace)
        return launched.process.returncode if launched else None

    async def _watch(self, launched: Launched) -> ServiceFailed:
        """Return why the worker is no longer there or no longer good."""
        liveness = Liveness(limit=self._probe_limit, patience=self._patience)
        gone = asyncio.ensure_future(launched.process.wait())
        try:
            while not (await asyncio.wait({gone}, timeout=self._probe_interval))[0]:
                if await self._is_hung(launched, liveness):
                    return self._hung(launched)
            return self._launcher.explain(launched, self.spec, gone.result())
        finally:
            gone.cancel()

    async def _is_hung(self, launched: Launched, liveness: Liveness) -> bool:
        ok = await self._launcher.probe(launched, self.spec)
        # Reading the whole tree's CPU time costs milliseconds: only when it matters.
        cpu = 0.0 if ok else await asyncio.to_thread(launched.process.cpu_seconds)
        return liveness.observe(now=now(), wall=wall(), ok=ok, cpu=cpu, lines=launched.output.count)

    def _defect(self, error: Exception) -> ServiceFailed:
        return ServiceFailed(
            f"{self._launcher.service}: {self.name} could not be supervised: "
            f"{type(error).__name__}: {error}",
            failure=FailureClass.PLUGIN,
            details={"service": self._launcher.service, "worker": self.name},
        )

    def _hung(self, launched: Launched) -> ServiceFailed:
        return ServiceFailed(
            f"{self._launcher.service}: {self.name} stopped answering and did nothing for "
            f"{self._probe_limit:.0f} s; it is restarted.",
            failure=FailureClass.HUNG,
            details={"service": self._launcher.service, "log": list(launched.output.lines)[-20:]},
        )


def _no_memory(error: NotEnoughMemory) -> ServiceFailed:
    return ServiceFailed(error.message, failure=FailureClass.OUT_OF_MEMORY, details=error.details)
