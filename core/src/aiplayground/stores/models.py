"""The store `models`: the models that are here, those in memory, and downloads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiplayground._listing import list_models
from aiplayground.api import DownloadProgress, ModelDownloadInfo, ModelInfo
from aiplayground.events import (
    Event,
    ModelDownloadProgress,
    ModelLoaded,
    ModelsChanged,
    ModelUnloaded,
    ServiceInfoUpdate,
)
from aiplayground.notices import NOTICES

from ._state import StoreState
from ._store import Store, action

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

__all__ = ["ModelsState", "ModelsStore"]

GONE = ("complete", "cancelled")
"""Where a download has ended that nobody has to be told about any more; a failed one stays."""

WHOLE = 100.0


class ModelsState(StoreState):
    """`loaded_models` are the names of models in memory, `downloads` those that are not done."""

    llm_models: tuple[ModelInfo, ...] = ()
    checkpoint_models: tuple[ModelInfo, ...] = ()
    lora_models: tuple[ModelInfo, ...] = ()
    other_models: tuple[ModelInfo, ...] = ()
    loaded_models: frozenset[str] = frozenset()
    downloads: Mapping[str, DownloadProgress] = {}


class ModelsStore(Store[ModelsState]):
    """The models that are here, those in memory, and downloads."""

    name = "models"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._turn = asyncio.Lock()
        self._stale = False
        self._services: list[tuple[str, str]] = []

    async def open(self) -> None:
        """List the models, and begin to follow what happens to them."""
        self._services = self._served_by()
        kinds = (ModelsChanged, ModelLoaded, ModelUnloaded, ModelDownloadProgress)
        await self._follow(*kinds, ServiceInfoUpdate, handle=self._heard)
        await self._list()

    @action(listing=True)
    async def refresh_models(self) -> None:
        """Look at the model folders again."""
        await self.kernel.library.refresh()
        await self._list()

    @action
    async def download_model(self, model_info: ModelDownloadInfo) -> None:
        """Download a model; returns when it is complete. `downloads` shows how far it is.

        Raises `ServiceNotAvailable` without the plugin for downloads.
        """
        asked = model_info.model_dump(mode="json", by_alias=True)
        await self.kernel.call("downloadModel", asked)
        await self.refresh_models()

    # What happens -------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        if isinstance(event, ModelDownloadProgress):
            self._note_download(event)
            return
        services = self._served_by()
        if isinstance(event, ModelsChanged) or services != self._services:
            self._services = services
            self._list_soon()
        self._show_loaded()

    def _served_by(self) -> list[tuple[str, str]]:
        """Return what decides which models can be served: each service and its state."""
        return [(each.name, each.status.value) for each in self.kernel.services()]

    def _note_download(self, event: ModelDownloadProgress) -> None:
        shown: DownloadProgress = NOTICES[ModelDownloadProgress].make(event)
        plain = shown.model_dump()
        key = plain.get("id") or shown.filename
        status = plain.get("status")
        downloads = {name: old for name, old in self.state.downloads.items() if name != key}
        if status not in GONE and (status is not None or shown.progress < WHOLE):
            downloads[key] = shown
        self._set(downloads=downloads)

    def _list_soon(self) -> None:
        """List again in the background; once for any number of reasons that come together."""
        if not self._stale:
            self._stale = True
            self._begin(self._list())

    async def _list(self) -> None:
        async with self._turn:
            self._stale = False
            found = await list_models(self.kernel)
            loaded = self._loaded()
            self._set(**_sorted(_with_loaded(found, loaded)), loaded_models=loaded)

    def _show_loaded(self) -> None:
        loaded = self._loaded()
        if loaded != self.state.loaded_models:
            every = [each for name in _FIELDS.values() for each in getattr(self.state, name)]
            self._set(**_sorted(_with_loaded(every, loaded)), loaded_models=loaded)

    def _loaded(self) -> frozenset[str]:
        return frozenset(name for each in self.kernel.services() for name in each.models)


_FIELDS = {
    "llm": "llm_models",
    "checkpoint": "checkpoint_models",
    "lora": "lora_models",
    "other": "other_models",
}


def _sorted(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """Return the fields of the state that these models make."""
    found: dict[str, list[ModelInfo]] = {name: [] for name in _FIELDS.values()}
    for each in models:
        found[_FIELDS.get(each.type, "other_models")].append(each)
    return {name: tuple(each) for name, each in found.items()}


def _with_loaded(models: Iterable[ModelInfo], loaded: frozenset[str]) -> list[ModelInfo]:
    return [
        each
        if bool(each.loaded) is (each.name in loaded)
        else each.model_copy(update={"loaded": each.name in loaded})
        for each in models
    ]
