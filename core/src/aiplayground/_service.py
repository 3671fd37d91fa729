"""One service: what callers ask of it, and where it stands.

Callers say what they want and await the outcome; they never read the state and act on it. Its
state (`_service_state`) is written by one task (`_actor`), which runs two state machines: what is
installed (`_installer`) and what runs (`_supervisor`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ._actor import Actor
from ._inside import Inside
from ._installer import Installer
from ._operations import Operations
from ._pool import WorkerPool
from ._service_state import ServiceState
from ._streams import Streams
from ._supervisor import Supervisor
from .events import ModelLoaded, ModelUnloaded
from .states import Runtime
from .status import ServiceInfo

if TYPE_CHECKING:
    from ._attached import Attachment
    from ._host import Host
    from .specs import BackendSpec

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
        self.state = ServiceState(spec.name, self.log.logger, host.announce)
        self._actor = Actor(spec.name, self.log.logger)
        self.supervisor = Supervisor(self, self._actor)
        self.installer = Installer(self, self._actor, then=self.supervisor.start_if_wanted)
        self.pool = WorkerPool(spec, host, self.log, self.supervisor.hear)

    async def open(self) -> None:
        """Find out what is installed and begin to take messages."""
        await self.installer.look()
        self._actor.open()

    async def start(self, model: str | None = None) -> None:
        """Be running when this returns; raises why it is not."""
        if not self.supervisor.serves:
            await self._actor.ask(self.supervisor.on_start, model)

    async def stop(self) -> None:
        """Be stopped when this returns; pre-empts a start in progress."""
        await self._actor.ask(self.supervisor.on_stop)

    async def set_up(self) -> None:
        """Install the engine, or bring an installed one up to date."""
        await self._actor.ask(self.installer.on_set_up)

    async def cancel_set_up(self) -> None:
        """End an installation in progress."""
        await self._actor.ask(self.installer.on_cancel)

    async def uninstall(self) -> None:
        """Stop the service and remove its engine."""
        await self.stop()
        await self._actor.ask(self.installer.on_uninstall)

    async def close(self) -> None:
        """Stop everything and end the task; the service is of no use afterwards."""
        if self._actor.task is None or self._actor.closed:
            await self._let_go()
            return
        self._actor.closed = True  # from here on only what ends something is accepted
        try:
            await self._actor.ask_to_end(self.installer.on_cancel)
            await self._actor.ask_to_end(self.supervisor.on_stop)
        finally:
            await self._end_tasks()

    async def _end_tasks(self) -> None:
        """End the tasks: only the writer is left, unless the service did not stop in time."""
        self._actor.abandon()
        supervisor = self.supervisor
        tasks = (self._actor.task, supervisor.job, self.installer.job, supervisor.health_task)
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
        return self.state.runtime

    def info(self) -> ServiceInfo:
        """Where the service stands, as values."""
        state = self.state
        base_url, port = self._address()
        return ServiceInfo(
            name=self.name,
            title=self.spec.title,
            installation=state.installation,
            runtime=state.runtime,
            desired=state.desired,
            start_tried=state.start_tried,
            base_url=base_url,
            port=port,
            version=self.ops.version,
            required=self.spec.required,
            error=state.error.to_dict() if state.error else None,
            workers=tuple(worker.info for worker in self.pool.workers.values()),
            models=self.ops.residency.loaded,
            attached=self.attachment is not None,
        )

    def _address(self) -> tuple[str, int]:
        """Return the base URL and port at which it answers, or would."""
        if self.attachment is not None:
            return self.attachment.base_url, self.attachment.port
        if self.inside.base_url is not None:
            return self.inside.base_url, urlsplit(self.inside.base_url).port or 0
        primary = self.pool.primary
        running = primary is not None and self.state.runtime is Runtime.RUNNING
        port = primary.port if running and primary else (self.pool.planned_port or 0)
        return f"http://127.0.0.1:{port}" if port else "", port

    def model_changed(self, model: str, reason: str | None) -> None:
        """Tell the outside that a model came into memory, or left it for a reason."""
        self.log.logger.info("%s %s", model, f"unloaded ({reason})" if reason else "loaded")
        if reason is None:
            self.host.bus.publish(ModelLoaded(service=self.name, model=model))
        else:
            self.host.admission.forget(self.name, model)
            self.host.bus.publish(ModelUnloaded(service=self.name, model=model, reason=reason))


def _attachment(service: str, host: Host) -> Attachment | None:
    settings = host.settings.attachment(service)
    if settings is None:
        return None
    from ._attached import Attachment  # an HTTP client is not for kernels without any

    return Attachment(service, settings, host.settings.timeouts.health)
