"""The models of a kernel as programs outside see them: what backends serve, and what lies here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .api import ModelInfo
from .models import LocalModel, is_unfinished, same_model

if TYPE_CHECKING:
    from . import types
    from .kernel import Kernel
    from .models import ModelPaths, ModelScan


async def list_models(kernel: Kernel) -> list[ModelInfo]:
    """Return every model once, by name: with the backend that serves it, if one does."""
    with kernel.library.one_look():
        scan = await kernel.library.scan()
        served = await kernel.models()
    return join(served, scan.models)


def join(served: Iterable[types.ModelInfo], local: Sequence[LocalModel]) -> list[ModelInfo]:
    """Put together what backends say and what the disk shows of the same model. Pure."""
    groups: dict[str, list[types.ModelInfo]] = {}
    for each in served:
        # Without a path it lies with a server elsewhere: a name means something there alone.
        groups.setdefault(each.path or f"{each.service}/{each.name}", []).append(each)
    here = {str(each.path): each for each in local}
    found = [_of_served(group, here.get(key)) for key, group in groups.items()]
    found += [_of_local(each) for path, each in here.items() if path not in groups]
    return sorted(found, key=lambda each: (each.name.casefold(), each.name, each.path))


def _of_served(group: Sequence[types.ModelInfo], local: LocalModel | None) -> ModelInfo:
    first = next((each for each in group if each.loaded), group[0])
    names = tuple(dict.fromkeys(each.service for each in group))
    return ModelInfo(
        name=first.name,
        path=first.path,
        type=first.type,
        size=first.size,
        loaded=bool(first.loaded),
        format=first.format,
        quantization=first.quantization,
        context_length=first.context_length,
        parameters=first.parameters,
        architecture=first.architecture,
        vision=first.vision,
        backend=first.service or None,
        backends=names if len(names) > 1 else None,
        repo=local.repo if local else None,
    )


def _of_local(model: LocalModel) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        path=str(model.path),
        type=model.type.value,
        size=model.size,
        loaded=False,
        format=model.format,
        quantization=model.quantization,
        context_length=model.context_length,
        parameters=model.parameters or None,
        architecture=model.architecture or None,
        vision=model.vision,
        repo=model.repo,
    )


async def model_exists(kernel: Kernel, path: str) -> bool:
    """Say whether there is a whole model, or a file of one, at a path in the model folders.

    What is hidden, partly there or damaged does not count. Raises `InvalidParameters` for a path
    outside.
    """
    found = await asyncio.to_thread(kernel.model_paths.resolve, path)
    scan = await kernel.library.scan()
    return await asyncio.to_thread(_exists, found, scan, kernel.model_paths)


def _exists(path: Path, scan: ModelScan, paths: ModelPaths) -> bool:
    if any(path == each.path or path in each.files for each in scan.models):
        return True
    if any(path == each.path for each in scan.problems) or not _is_there(path):
        return False
    if path.is_dir():
        return any(file.is_relative_to(path) for each in scan.models for file in each.files)
    if _unfinished(path, paths):
        return False
    # A further file of a model (a part, a projector, a tokenizer) or one that no listing shows.
    return path.is_file() and not _part_of_problem(path, scan)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # a name too long, or one that no file system takes


def _unfinished(path: Path, paths: ModelPaths) -> bool:
    base = next((root for root in paths.roots() if path.is_relative_to(root)), path.parent)
    steps = path.relative_to(base).parts
    folder = base
    for step in steps:
        if is_unfinished(step, {f"{step}.aria2"} if (folder / f"{step}.aria2").exists() else ()):
            return True
        folder /= step
    return False


def _part_of_problem(path: Path, scan: ModelScan) -> bool:
    """Say whether a file is a part of a split model that is not whole."""
    return any(same_model(path, each.path) for each in scan.problems)
