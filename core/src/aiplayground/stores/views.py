"""The kernel's own stores as a user interface sees them, in process and through a client alike."""

from __future__ import annotations

from typing import Protocol

from aiplayground.states import BackendStatus

from ._surface import StoreView
from .backend_services import BackendServicesState


class BackendServices(StoreView[BackendServicesState], Protocol):
    """The store `backendServices`."""

    async def refresh_service_info(self) -> None:
        """Look at every service anew."""

    async def start_service(self, service_name: str) -> BackendStatus:
        """Start a service; returns when it runs."""

    async def stop_service(self, service_name: str) -> BackendStatus:
        """Stop a service."""

    async def set_up_service(self, service_name: str) -> None:
        """Install what a service needs."""
