"""`aipg models info`: everything that is known of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiplayground.errors import FileOperationError, ModelNotFound

from ._output import count_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiplayground.api import ModelInfo
    from aiplayground.kernel import Kernel
    from aiplayground.models import LocalModel


@dataclass(frozen=True, slots=True)
class Known:
    """A model; `local` is what lies here, `freed` what removing it would free, in bytes.

    `kept` says why it is not ours to remove, where that is so.
    """

    model: ModelInfo
    local: LocalModel | None
    freed: int = 0
    kept: str = ""


async def look_up(kernel: Kernel, name: str) -> Known:
    """Return what is known of a model. Raises `ModelNotFound` with what comes close."""
    from aiplayground._listing import list_models
    from aiplayground.models import match_model

    with kernel.library.one_look():
        every, scan = await list_models(kernel), await kernel.library.scan()
        try:
            local = match_model(name, scan.models)
        except ModelNotFound:
            far = [each for each in every if name in (each.name, f"{each.backend}/{each.name}")]
            if len(far) != 1:
                await kernel.library.check(name)
                raise
            return Known(far[0], None)
        model = next(each for each in every if each.path == str(local.path))
        try:
            removal = await kernel.library.plan_removal(local.name)
        except FileOperationError as error:
            return Known(model, local, kept=error.message)
        return Known(model, local, removal.freed)


def as_json(model: ModelInfo, known: Known) -> dict[str, Any]:
    """Return what `aipg models info --json` prints."""
    found = model.model_dump(exclude_none=True)
    local = known.local
    if local is not None:
        found |= {
            "files": [str(path) for path in local.files],
            "chat_template": local.chat_template,
            "license": local.license,
            "projector": str(local.projector) if local.projector else None,
            "removable": not known.kept,
            "freed_by_removal": known.freed,
        }
    return found


def lines(model: ModelInfo, known: Known) -> Iterator[tuple[str, str]]:
    """Yield what is shown: labels and values."""
    yield from (line for line in _about(model) if line[1])
    local = known.local
    if local is None:
        return
    yield "chat template", "yes" if local.chat_template else "no"
    if local.license:
        yield "licence", local.license
    if local.projector:
        yield "projector", str(local.projector)
    for label, path in zip(["files", *[""] * len(local.files)], local.files, strict=False):
        yield label, str(path)
    yield "removal", known.kept or f"frees {size_text(known.freed)}"


def _about(model: ModelInfo) -> Iterator[tuple[str, str]]:
    services = model.backends or ((model.backend,) if model.backend else ())
    yield "name", model.name
    yield "type", model.type
    yield "path", model.path
    yield "size", size_text(model.size)
    yield "format", model.format or ""
    yield "architecture", model.architecture or ""
    yield "parameters", count_text(model.parameters)
    yield "quantization", model.quantization or ""
    yield "context", f"{model.context_length} tokens" if model.context_length else ""
    yield "sees images", "yes" if model.vision else ""
    yield "repository", model.repo or ""
    yield "runs on", ", ".join(services) or "nothing that is installed here"
    yield "in memory", f"yes, of {model.backend}" if model.loaded else "no"
