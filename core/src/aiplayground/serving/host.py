"""The state of a worker: one engine, and which model it holds or is loading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiplayground.errors import AIPlaygroundError, ModelNotFound, ServiceNotAvailable, suggest

from .engine import Engine, LoadedModel
from .protocol import OCCUPIED

PROGRESS_STEP = 0.1
"""A load is reported in steps of this size: each line of log extends the kernel's deadline."""


class Host:
    """Owns the engine; loads and unloads run one at a time.

    `report` takes lines for the log. Until `launch` has ended the worker is not ready.
    """

    def __init__(self, engine: Engine, report: Callable[[str], None]) -> None:
        self.engine = engine
        self._report = report
        self._lock = asyncio.Lock()
        self._loading: str | None = None
        self._progress = 0.0
        self._launching = True

    async def launch(self, path: Path | None, name: str) -> None:
        """Bring the engine up, with a model if one is given. Raises what the engine raises."""
        self._loading = name if path else None
        await self.engine.open()
        if path is not None:
            await self.load(path, name)
        self._launching = False

    async def load(self, path: Path, name: str, *, replace: bool = True) -> LoadedModel:
        """Load a model in place of the present one; nothing happens if it is there already.

        Raises `ServiceNotAvailable` if another is there and must not be replaced.
        """
        async with self._lock:
            present = self.engine.loaded
            if present is not None and (present.name, present.path) == (name, path):
                return present
            if present is not None and not replace:
                raise ServiceNotAvailable(
                    f"This worker holds the model '{present.name}'. Unload it first.",
                    details={"reason": OCCUPIED, "loaded": present.name},
                )
            self._loading, self._progress = name, 0.0
            try:
                return await self.engine.load(path, name, self._on_progress)
            finally:
                self._loading = None

    async def unload(self) -> None:
        """Free the model, if there is one."""
        async with self._lock:
            await self.engine.unload()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status and body of `GET /health`.

        503 only while the worker comes up: one that is asked to load a model later is alive and
        must not look hung.
        """
        model = self.engine.loaded
        body: dict[str, Any] = {
            "status": "loading" if self._launching else "ok",
            "model": model.name if model else None,
            "active": self.engine.active,
        }
        if model is not None:
            body["context_length"] = model.context_length
        if self._loading is not None:
            body |= {"loading": self._loading, "progress": round(self._progress, 3)}
        return (503 if self._launching else 200), body

    def check_model(self, name: str) -> LoadedModel:
        """Return the model of this name, or raise what the caller is told."""
        model = self.engine.loaded
        if model is not None and model.name == name:
            return model
        raise self._absent(name, model)

    def find_model(self, name: str) -> LoadedModel:
        """Return the model of this name. Raises `ModelNotFound`, also while it is being loaded."""
        model = self.engine.loaded
        if model is not None and model.name == name:
            return model
        raise ModelNotFound(
            f"The model '{name}' is not loaded here.{suggest(name, [model.name] if model else [])}",
            details={"model": name, "loaded": model.name if model else None},
        )

    def _absent(self, name: str, model: LoadedModel | None) -> AIPlaygroundError:
        if self._launching or self._loading == name:
            return ServiceNotAvailable(
                f"The model '{self._loading or name}' is being loaded. Try again in a moment.",
                details={"model": name, "progress": round(self._progress, 3)},
            )
        if model is None:
            return ServiceNotAvailable(
                f"No model is loaded, so '{name}' cannot answer. Load it first.",
                details={"model": name},
            )
        return ModelNotFound(
            f"The model '{name}' is not loaded here; '{model.name}' is."
            f"{suggest(name, [model.name])}",
            details={"model": name, "loaded": model.name},
        )

    def _on_progress(self, fraction: float) -> None:
        # Called from the engine's thread: both are single stores, which need no lock.
        if int(fraction / PROGRESS_STEP) > int(self._progress / PROGRESS_STEP):
            self._report(f"loading {self._loading}: {fraction:.0%}")
        self._progress = fraction
