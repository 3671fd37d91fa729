"""The services of one kernel: found by name, opened together, stopped in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ._clock import now
from ._service import Service
from .errors import AIPlaygroundError, ServiceNotAvailable, suggest
from .states import Runtime

if TYPE_CHECKING:
    from ._host import Host
    from ._loader import PluginFailure
    from .specs import BackendSpec
    from .status import ServiceInfo

LEAST = 0.1
"""Seconds that a service gets at least to stop in order."""


class Services(Mapping[str, Service]):
    """The services by name, empty until `add`. `failures` explain why one is not there."""

    def __init__(self, failures: Sequence[PluginFailure]) -> None:
        self._failures = failures
        self._services: dict[str, Service] = {}
        self._background: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    def add(self, specs: Mapping[str, BackendSpec], host: Host) -> None:
        """Make a service of each backend."""
        self._services.update({name: Service(spec, host) for name, spec in specs.items()})

    def find(self, name: str) -> Service:
        """Return a service; raises `ServiceNotAvailable` that says which there are."""
        if name in self._services:
            return self._services[name]
        failed = next((each for each in self._failures if each.name == name), None)
        why = f" Its plugin failed: {failed.message}" if failed else suggest(name, self._services)
        known = ", ".join(self._services) or "none; install a plugin such as aiplayground-llamacpp"
        raise ServiceNotAvailable(
            f"There is no service '{name}'.{why} Services here: {known}.",
            details={"service": name, "services": list(self._services)},
        )

    def infos(self) -> tuple[ServiceInfo, ...]:
        """Return every service as it stands, in a stable order."""
        return tuple(service.info() for service in self._services.values())

    # Up -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Let all of them find out what is installed; none is started."""
        await asyncio.gather(*(service.open() for service in self._services.values()))

    def start_in_background(self, names: Iterable[str]) -> None:
        """Start services without waiting for them; `give_up_starts` ends that."""
        for name in names:
            task = asyncio.create_task(_start(self._services[name]))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def give_up_starts(self) -> None:
        """Wait no more for what is started in the background."""
        for task in list(self._background):
            task.cancel()

    # Down ---------------------------------------------------------------------------------

    async def drain(self, limit: float) -> None:
        """Wait until no answer is in progress, for `limit` seconds at most."""
        waiting = [
            asyncio.ensure_future(each.streams.drained()) for each in self._services.values()
        ]
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=limit)
        for waiter in late:
            waiter.cancel()

    async def stop(self, limit: float) -> list[str]:
        """Stop in reverse order of starting, within `limit` seconds; return who had to be killed.

        A slow one does not keep the others up.
        """
        deadline = now() + limit
        order = sorted(
            self._services.values(), key=lambda each: each.supervisor.started_at, reverse=True
        )
        idle = [each for each in order if each.runtime is Runtime.STOPPED]
        late = await asyncio.gather(*(_closed_late(each, limit) for each in idle))
        order = [each for each in order if each not in idle]
        for place, service in enumerate(order):
            # Its share of what is left: a slow one does not use up the time of the others.
            left = (deadline - now()) / (len(order) - place)
            late.append(await _closed_late(service, left))
        return [name for name in late if name is not None]

    async def close(self) -> None:
        """Close all at once."""
        await asyncio.gather(*(service.close() for service in self._services.values()))

    def kill_now(self) -> None:
        """End every worker at once, without the event loop."""
        for service in self._services.values():
            service.pool.kill_now()


async def _start(service: Service) -> None:
    try:
        await service.start()
    except AIPlaygroundError as error:
        # Its state and log have it; the kernel itself is up.
        service.log.logger.error("It could not be started: %s", error.message)


async def _closed_late(service: Service, limit: float) -> str | None:
    """Close a service; return its name if it had to be killed after `limit` seconds."""
    try:
        async with asyncio.timeout(max(LEAST, limit)):
            await service.close()
    except TimeoutError:
        service.log.logger.error("It did not stop in time and was killed.")
        return service.name
    return None
