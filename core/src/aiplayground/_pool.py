"""The workers of one service: launched, found and ended by name."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

from ._worker import Worker
from .errors import AIPlaygroundError, PluginError, ServiceFailed, ServiceNotAvailable
from .policy import RestartPolicy
from .states import Runtime

if TYPE_CHECKING:
    from ._attached import Attachment
    from ._host import Host
    from ._logs import ServiceLog
    from ._worker import Report
    from .specs import BackendSpec, LaunchSpec


class WorkerPool:
    """Every worker of a service, from the moment it is asked for until it has ended.

    `report` hears of each change of a worker's state.
    """

    def __init__(self, spec: BackendSpec, host: Host, log: ServiceLog, report: Report) -> None:
        own, timeouts = host.settings.service(spec.name), host.settings.timeouts
        self.workers: dict[str, Worker] = {}
        self.planned_port = own.port or spec.preferred_port
        self.start_timeout = own.start_timeout or timeouts.start
        self._service = spec.name
        self._report = report
        self._claim = partial(host.admission.claim, spec.name)
        self._restart = RestartPolicy(**host.settings.restart.model_dump())
        liveness = host.settings.liveness
        self._liveness = (liveness.interval, liveness.limit, liveness.hard_factor)
        self._launcher = host.launcher(
            service=spec.name,
            http=host.http,
            log=lambda worker, line: log.line(worker, line),
            ledger=host.ledger,
            timeout=self.start_timeout,
            probe_timeout=timeouts.health,
            grace=timeouts.stop_grace,
            probe_interval=timeouts.probe_interval,
            preferred_port=spec.preferred_port,
            fixed_port=own.port,
            keys=host.keys,
        )

    @property
    def primary(self) -> Worker | None:
        """The worker that decides whether the service runs."""
        return next((each for each in self.workers.values() if each.primary), None)

    def has(self, worker: Worker) -> bool:
        """Whether this very worker belongs to the service, and not one that took its name."""
        return self.workers.get(worker.name) is worker

    async def spawn(self, spec: LaunchSpec) -> Worker:
        """Launch a worker and wait until it is ready; it is recorded before it is launched.

        Raises `NotEnoughMemory` for a model that nobody asked admission for and that does not fit.
        """
        if spec.name in self.workers:
            await self.end(spec.name)
        async with self._claim(spec.model):
            return await self._launch(spec)

    async def _launch(self, spec: LaunchSpec) -> Worker:
        self._make_way(spec)
        worker = self.workers[spec.name] = Worker(
            spec, self._launcher, self._restart, self._liveness, self._report, self._claim
        )
        worker.launch()
        try:
            await worker.ready()
        except BaseException:  # also a cancellation: by a stop, or because a load takes too long
            await self.end(spec.name)
            raise
        return worker

    def _make_way(self, spec: LaunchSpec) -> None:
        holder = self.primary if spec.primary else None
        if holder is not None and holder.spec.primary:
            raise PluginError(f"the service has a primary worker already, '{holder.name}'.")
        if holder is not None:
            holder.primary = False  # it only stood in for one that had been ended

    def promote(self) -> Worker | None:
        """Have a worker that runs stand in for a primary one that was ended."""
        for worker in self.workers.values():
            if worker.state is Runtime.RUNNING:
                worker.primary = True
                return worker
        return None

    async def attach(self, attachment: Attachment) -> None:
        """Watch an endpoint that already runs. Raises `ServiceFailed` when it is not there.

        It is watched all the same then, and the service runs as soon as it is.
        """
        from ._attached import AttachedWorker  # an HTTP client is not for kernels without any

        worker = AttachedWorker(
            attachment, self._launcher, self._restart, self._liveness, self._report
        )
        self.workers[worker.name] = worker
        worker.launch()
        try:
            await worker.ready()
        except asyncio.CancelledError:
            await self.end(worker.name)
            raise

    @property
    def watching(self) -> bool:
        """Whether there is an endpoint that is away and looked for."""
        return any(w.attached and w.state is Runtime.FAILED for w in self.workers.values())

    async def end(self, name: str) -> None:
        """End one worker; nothing happens if there is none of this name."""
        worker = self.workers.get(name)
        if worker is not None:
            await worker.end()
            if self.has(worker):
                del self.workers[name]

    async def end_all(self) -> None:
        """End every worker."""
        await asyncio.gather(*(self.end(name) for name in list(self.workers)))

    def bind(self, host: str) -> socket.socket:
        """Return a bound socket on the port of a primary worker; raises `ServiceFailed`."""
        return self._launcher.bind_primary(host)

    def kill_now(self) -> None:
        """End every worker at once, without the event loop."""
        for worker in list(self.workers.values()):
            worker.kill_now()

    def holder(self, model: str | None) -> Worker:
        """Return the running worker that holds a model, else the primary one."""
        holder = next((each for each in self.workers.values() if each.model == model), self.primary)
        if holder is None or holder.state is not Runtime.RUNNING:
            raise ServiceNotAvailable(f"{self._service} has no worker that answers now.")
        return holder

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        """Say why the worker at an address went away."""
        worker = next((w for w in self.workers.values() if w.base_url == base_url), None)
        cause = await worker.loss() if worker is not None else None
        if cause is not None:
            return ServiceFailed(cause.message, failure=cause.failure, details=cause.details)
        return ServiceNotAvailable(
            f"{self._service}: the connection to its worker broke "
            f"({type(error).__name__}: {error}). Try again.",
            details={"service": self._service},
        )
