"""Removing a model: what goes, what stays, and what that frees. Planned first, then done."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiplayground.errors import FileOperationError
from aiplayground.paths import file_error

from ._paths import ModelPaths
from ._types import LocalModel, ModelScan

_LEFTOVERS = frozenset({".cache"})
"""What huggingface_hub leaves beside what it downloaded into a folder."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing a model means.

    `files` go one by one; `folder` goes as a whole, where the model is one. `freed` is in bytes:
    files that have another name on the disk, and those behind a link, free nothing. `kept` is a
    projector that other models use.
    """

    model: LocalModel
    files: tuple[Path, ...]
    folder: Path | None
    freed: int
    kept: Path | None
    stops: tuple[Path, ...]

    def run(self) -> None:
        """Remove the files, then folders that are empty now. Blocks. Raises `FileOperationError`.

        What was removed before an error stays removed; trying again goes on from there.
        """
        for path in self.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise file_error("remove", path, error) from error
        if self.folder is not None:
            try:
                shutil.rmtree(self.folder)
            except OSError as error:
                raise file_error("remove", self.folder, error) from error
        for parent in {path.parent for path in (*self.files, self.folder or self.model.path)}:
            self._prune(parent)

    def _prune(self, folder: Path) -> None:
        """Remove a folder that has nothing of the user's in it, and its parents likewise."""
        while folder.resolve() not in self.stops and folder.is_dir() and not folder.is_symlink():
            left = {entry.name for entry in folder.iterdir()}
            if left - _LEFTOVERS:
                return
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise file_error("remove", folder, error) from error
            folder = folder.parent


def plan_removal(model: LocalModel, scan: ModelScan, paths: ModelPaths) -> Removal:
    """Say what removing a model means; nothing is removed yet. Looks at the disk.

    Raises `FileOperationError` for one that is not ours to remove.
    """
    if not paths.is_writable(model.path):
        raise _not_ours(model, paths)
    others = [each for each in scan.models if each.path != model.path]
    stops = tuple(folder.resolve() for folder in (*paths.writable(), *paths.folders.values()))
    folder = model.path if _goes_whole(model, others, stops) else None
    files = () if folder else model.files
    kept = None
    if model.projector is not None:
        shared = any(each.projector == model.projector for each in others)
        if shared or not paths.is_writable(model.projector):
            kept = model.projector
        else:
            files = (*files, model.projector)
    freed = sum(map(_freed, _below(folder) if folder else files))
    return Removal(model, files, folder, freed, kept, stops)


def _goes_whole(model: LocalModel, others: Iterable[LocalModel], stops: tuple[Path, ...]) -> bool:
    """Say whether a model is a folder with nothing else of use in it."""
    path = model.path
    return (
        path.is_dir()
        and not path.is_symlink()
        and path.resolve() not in stops
        and not any(file.is_relative_to(path) for each in others for file in each.files)
    )


def _below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _freed(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0


def _not_ours(model: LocalModel, paths: ModelPaths) -> FileOperationError:
    inside = [folder for folder in paths.read_only if model.path.is_relative_to(folder)]
    owner = f"in {inside[0]}, which is only read" if inside else "outside our model folders"
    return FileOperationError(
        f"{model.name} lies {owner}: {model.path}. Remove it with the program that put it there.",
        details={"path": str(model.path), "reason": "read-only"},
    )
