"""Which models a manifest's backend can serve, and what its command gets of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import ModelNotFound, ServiceNotAvailable, suggest
from aiplayground.specs import Capability

from ._schema import Manifest

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext
    from aiplayground.models import LocalModel
    from aiplayground.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Choosable:
    """A model that the command can be given; `age` orders them: the largest is the newest."""

    name: str
    argument: str
    embedding: bool = False
    projector: str | None = None
    age: float = 0.0
    local: LocalModel | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What placeholders and conditions say of it."""
        return {
            "model": self.argument,
            "model.name": self.name,
            "model.projector": self.projector,
            "model.embedding": self.embedding,
            "model.vision": self.projector is not None,
        }


async def choosable(ctx: ServiceContext, manifest: Manifest) -> Sequence[Choosable]:
    """Return the models that the manifest names, or that lie where it says."""
    source = manifest.models
    if source.named:
        return [
            Choosable(each.name, str(each.path or each.name), each.embedding)
            for each in source.named
        ]
    if source.folder is not None:
        return await ctx.run_sync(_in_folder, source.folder, source.pattern)
    return [_local(each) for each in await ctx.local_models() if _serves(manifest, each)]


async def find(ctx: ServiceContext, manifest: Manifest, name: str) -> Choosable:
    """Return the model of this name. Raises `ModelNotFound`."""
    models = {each.name: each for each in await choosable(ctx, manifest)}
    if name not in models:
        raise ModelNotFound(
            f"{ctx.service} has no model '{name}'.{suggest(name, models)}",
            details={"service": ctx.service, "model": name},
        )
    return models[name]


async def first(ctx: ServiceContext, manifest: Manifest) -> Choosable:
    """Return the model to start with when none is named: the first named, or the newest file.

    Raises `ServiceNotAvailable` when there is none.
    """
    models = await choosable(ctx, manifest)
    if not models:
        where = manifest.models.folder or "a models folder (`aipg models paths` shows them)"
        raise ServiceNotAvailable(
            f"{ctx.service} cannot start without a model, and there is none. Put one into {where}.",
            details={"service": ctx.service},
        )
    writers = [each for each in models if not each.embedding] or models
    return writers[0] if manifest.models.named else max(writers, key=lambda each: each.age)


def info(service: str, model: Choosable) -> ModelInfo:
    """Return what is listed of a model."""
    from aiplayground.types import ModelInfo

    kind: Any = "embedding" if model.embedding else "llm"
    local = model.local
    if local is None:
        path = model.argument if Path(model.argument).is_absolute() else ""
        return ModelInfo(name=model.name, path=path, type=kind, service=service)
    return ModelInfo(
        name=local.name,
        path=str(local.path),
        type=kind,
        service=service,
        size=local.size,
        format=local.format,
        architecture=local.architecture,
        quantization=local.quantization,
        parameters=local.parameters,
        context_length=local.context_length,
        vision=local.vision,
        chat=local.chat_template,
    )


def _serves(manifest: Manifest, model: LocalModel) -> bool:
    if model.type == "embedding":
        return Capability.EMBEDDING in manifest.capabilities
    writes = {Capability.CHAT, Capability.COMPLETION} & manifest.capabilities
    return model.type == "llm" and bool(writes)


def _local(model: LocalModel) -> Choosable:
    return Choosable(
        model.name,
        str(model.path),
        model.type == "embedding",
        str(model.projector) if model.projector else None,
        model.mtime,
        model,
    )


def _in_folder(folder: Path, pattern: str) -> Sequence[Choosable]:
    found = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    return [
        Choosable(path.stem if path.is_file() else path.name, str(path), age=path.stat().st_mtime)
        for path in found
    ]
