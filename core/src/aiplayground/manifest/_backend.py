"""A manifest as a plugin: its hooks are the same for all, and read what the file says.

A command that takes `{model}` runs once for each model in memory. The first of these workers is the
primary one. Such a program cannot be empty: the service starts with the model that is asked for,
else with the first, and is stopped when its last model is unloaded. Any other command runs once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import FailureClass, ServiceFailed, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Health, LaunchSpec

from . import _template
from ._schema import FACTS, MODEL_PLACES, Choice, Manifest

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext, WorkerHandle
    from aiplayground.types import ModelInfo

    from ._models import Choosable

PRIMARY = "main"
"""The name of the worker of a program that runs once."""


class ManifestBackend:
    """The backend that a manifest describes."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        used = {place for text in manifest.texts for place in _template.places(text)}
        used |= {part.condition for part in manifest.command if isinstance(part, Choice)}
        self._per_model = bool(used & {*MODEL_PLACES, *FACTS})
        self._has_key = "key" in used

    @cached_property
    def _settings(self) -> type[Any]:
        from ._settings import settings_model

        return settings_model(self.manifest)

    def settings(self) -> type[Any]:
        """Return the pydantic model of its settings, the same one each time."""
        return self._settings

    @hookimpl
    def backend(self) -> BackendSpec:
        """Say who this backend is."""
        said = self.manifest
        return BackendSpec(
            name=said.name,
            title=said.title or said.name,
            description=said.description,
            capabilities=said.capabilities,
            parameters=said.parameters,
            preferred_port=said.port,
            settings=self.settings,
            api="openai",
        )

    @hookimpl
    async def installed_version(self, ctx: ServiceContext) -> str:
        """Look whether the program is there; which version it is, is not asked."""
        (program,) = _template.arguments(self.manifest.command[:1], self._values(ctx, {}))
        if await ctx.run_sync(self._found, program) is None:
            raise ServiceFailed(
                f"{ctx.service}: there is no program '{program}'. Install it, or correct its path "
                f"in the settings of {ctx.service} or in {self.manifest.file}.",
                failure=FailureClass.NOT_INSTALLED,
                details={"service": ctx.service, "program": program},
            )
        return ""

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        """Launch the program, with a model if it takes one."""
        from . import _models

        if not self._per_model:
            await ctx.spawn(self._launch(ctx, None))
        elif ctx.model is None:
            await ctx.spawn(self._launch(ctx, await _models.first(ctx, self.manifest)))
        else:
            await ctx.spawn(self._launch(ctx, await _models.find(ctx, self.manifest, ctx.model)))

    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        """Launch the program for one more model."""
        from . import _models

        if self._per_model and _holder(ctx, model) is None:
            await ctx.spawn(self._launch(ctx, await _models.find(ctx, self.manifest, model)))

    @hookimpl
    async def unload_model(self, ctx: ServiceContext, model: str) -> None:
        """End the program that has the model."""
        worker = next((each for each in ctx.workers.values() if each.model == model), None)
        if self._per_model and worker is not None:
            await ctx.end(worker)

    @hookimpl
    async def endpoint(self, ctx: ServiceContext, model: str | None) -> str:
        """Return where the model answers."""
        worker = _holder(ctx, model) if self._per_model and model else _primary(ctx)
        if worker is None:
            raise ServiceNotAvailable(
                f"{ctx.service} has no worker that answers{f' for {model}' if model else ''} now. "
                f"Try again.",
                details={"service": ctx.service, "model": model},
            )
        return worker.base_url

    @hookimpl
    async def list_models(self, ctx: ServiceContext) -> Sequence[ModelInfo]:
        """List what is named or lies in folders; else ask the program, if it runs."""
        source = self.manifest.models
        if not (self._per_model or source.named or source.folder):
            from aiplayground._openai import list_models

            return await list_models(ctx)
        from . import _models

        models = await _models.choosable(ctx, self.manifest)
        return [_models.info(ctx.service, model) for model in models]

    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        """Ask the program how it is."""
        if self.manifest.health is None:
            from aiplayground._openai import health

            return await health(ctx)
        import httpx

        url = await self.endpoint(ctx, None)
        try:
            answer = await ctx.http.get(url + self.manifest.health)
        except httpx.TransportError as error:
            raise await ctx.lost(url, error) from error
        told = f"{self.manifest.health} answered with HTTP {answer.status_code}"
        return Health(ok=answer.status_code == httpx.codes.OK, detail=told)

    def _launch(self, ctx: ServiceContext, model: Choosable | None) -> LaunchSpec:
        said = self.manifest
        values = self._values(ctx, model.values if model else {})
        program, *rest = _template.arguments(said.command, values)
        return LaunchSpec(
            argv=[self._found(program) or program, *rest],
            name=f"model:{model.name}" if model else PRIMARY,
            primary=not any(each.info.primary for each in ctx.workers.values()),
            model=model.name if model else None,
            env=_template.environment(said.env, values),
            cwd=_template.folder(said.cwd, values),
            ready_path=said.ready,
            start_timeout=said.start_timeout,
            authorize=self._has_key,
        )

    def _values(self, ctx: ServiceContext, model: dict[str, Any]) -> dict[str, Any]:
        settings = {f"settings.{name}": value for name, value in ctx.settings}
        return {
            # The kernel fills in these two, at each launch.
            "port": "{port}",
            "key": "{token}",
            "host": "127.0.0.1",
            "python": sys.executable,
            "here": self.manifest.file.parent,
            "data": ctx.data_dir,
            "cache": ctx.cache_dir,
            **settings,
            **model,
        }

    def _found(self, program: str) -> str | None:
        """Return the program's path: beside the manifest, if it is relative with a folder in it."""
        path = Path(program).expanduser()
        if len(path.parts) > 1:
            path = self.manifest.file.parent / path
        return shutil.which(str(path))


def _primary(ctx: ServiceContext) -> WorkerHandle | None:
    return next((each for each in ctx.workers.values() if each.info.primary and _runs(each)), None)


def _holder(ctx: ServiceContext, model: str) -> WorkerHandle | None:
    workers = ctx.workers.values()
    return next((each for each in workers if each.model == model and _runs(each)), None)


def _runs(worker: WorkerHandle) -> bool:
    return worker.info.state.value == "running"
