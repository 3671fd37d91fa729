"""The kernel's own stores as a user interface sees them, in process and through a client alike."""

from __future__ import annotations

from typing import Any, Protocol

from aiplayground.api import ModelDownloadInfo
from aiplayground.states import BackendStatus

from ._surface import StoreView
from .backend_services import BackendServicesState
from .models import ModelsState
from .presets import PresetsState


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


class Models(StoreView[ModelsState], Protocol):
    """The store `models`."""

    async def refresh_models(self) -> None:
        """Look at the model folders again."""

    async def download_model(self, model_info: ModelDownloadInfo) -> None:
        """Download a model; returns when it is complete."""


class Presets(StoreView[PresetsState], Protocol):
    """The store `presets`."""

    async def set_active_preset(self, index: int) -> None:
        """Make a preset the active one."""

    async def set_active_variant(self, name: str | None = None) -> None:
        """Choose a variant of the active preset; None means the first."""

    async def set_setting(self, key: str, value: Any = None) -> None:
        """Set a setting of the active preset; None brings its default back."""

    async def reset_settings(self) -> None:
        """Bring the defaults of all settings of the active preset back."""

    async def load_presets(self) -> None:
        """Read every preset anew."""
