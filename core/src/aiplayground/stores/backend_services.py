"""The store `backendServices`: every service, and how installations go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from aiplayground.api import ApiServiceInformation, SetupProgress
from aiplayground.events import Event, ServiceInfoUpdate, ServiceSetUpProgress
from aiplayground.states import BackendStatus

from ._state import StoreState
from ._store import Store, action

__all__ = ["BackendServicesState", "BackendServicesStore"]

ServiceName = Annotated[str, Field(min_length=1, max_length=64)]


class BackendServicesState(StoreState):
    """`setup_progress` has the newest step of each installation since the kernel came up."""

    current_service_info: tuple[ApiServiceInformation, ...] = ()
    setup_progress: Mapping[str, SetupProgress] = {}
    is_initialized: bool = False


class BackendServicesStore(Store[BackendServicesState]):
    """Every service as it stands, and what an installation is doing."""

    name = "backendServices"

    async def open(self) -> None:
        """Begin to follow the kernel's services."""
        await self._follow(ServiceInfoUpdate, ServiceSetUpProgress, handle=self._heard)

    def _heard(self, event: Event) -> None:
        if isinstance(event, ServiceSetUpProgress):
            step = SetupProgress(
                service_name=event.service,
                stage=event.stage,
                progress=event.progress,
                message=event.message or None,
            )
            self._set(setup_progress={**self.state.setup_progress, event.service: step})
        else:
            self._show()  # as it is by now: an event that waited does not bring back the past

    def _show(self) -> None:
        shown = tuple(ApiServiceInformation.of(each) for each in self.kernel.services())
        self._set(current_service_info=shown, is_initialized=True)

    @action(listing=True)
    async def refresh_service_info(self) -> None:
        """Look at every service anew."""
        self._show()

    @action
    async def start_service(self, service_name: ServiceName) -> BackendStatus:
        """Start a service; returns when it runs."""
        try:
            return (await self.kernel.start(service_name)).status
        finally:
            self._show()

    @action
    async def stop_service(self, service_name: ServiceName) -> BackendStatus:
        """Stop a service; a start in progress is ended."""
        try:
            return (await self.kernel.stop(service_name)).status
        finally:
            self._show()

    @action
    async def set_up_service(self, service_name: ServiceName) -> None:
        """Install what a service needs."""
        try:
            await self.kernel.set_up(service_name)
        finally:
            self._show()
