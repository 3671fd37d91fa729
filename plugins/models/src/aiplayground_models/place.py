"""Where what is downloaded goes: below our own folders, whatever a caller or a repository says."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from aiplayground.errors import FileOperationError, InvalidParameters
from aiplayground.models import kind_named

if TYPE_CHECKING:
    from aiplayground.models import ModelPaths

HIDDEN = ".downloads"
"""The folder of what is not complete. Nothing looks for models in folders that begin with a dot."""

_ODD = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
# Names that Windows keeps for devices, with any suffix.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")


def destination(paths: ModelPaths, text: str, repo: str, kind: str) -> Path:
    """Return the folder to download into: `text` below one of our folders, or that of the kind.

    `llm/x` means the folder of that kind wherever it lies, any other text is relative to the root.
    Looks at the disk, since links must not lead out. Raises `InvalidParameters`.
    """
    if not text.strip():
        return paths.folder(kind).joinpath(*repo.split("/"))
    given = Path(text.replace("\\", "/"))
    if _ODD.search(text.replace("\\", "/")) or ".." in given.parts:
        raise _outside(text, paths)
    first = kind_named(given.parts[0]) if given.parts and not given.is_absolute() else None
    folder = paths.folders[first].joinpath(*given.parts[1:]) if first else paths.root / given
    if any(part.startswith(".") for part in given.parts) or not _is_below(folder, paths):
        raise _outside(text, paths)
    return folder


def base_of(paths: ModelPaths, folder: Path) -> Path:
    """Return the one of our folders that another lies in: partial downloads are kept in it.

    It is on the same file system, as far as the user has not put links in between.
    """
    found = [each for each in (*paths.writable(), paths.root) if folder.is_relative_to(each)]
    return max(found, key=lambda each: len(each.parts))


def inside(folder: Path, path: str) -> Path:
    """Return where a file of a repository goes. Raises `FileOperationError` for an unsafe name."""
    parts = PurePosixPath(path).parts
    unsafe = (
        not parts
        or path.startswith("/")
        or any(part in ("..", ".") or part.startswith(".") for part in parts)
        or any(_ODD.search(part) or _DEVICES.match(part) or len(part) > 240 for part in parts)
    )
    if unsafe:
        raise FileOperationError(
            f"The repository has a file named {path[:200]!r}, which is not safe to write. Name the "
            "files that you want.",
            details={"file": path[:200], "reason": "unsafe-name"},
        )
    return folder.joinpath(*parts)


def _is_below(folder: Path, paths: ModelPaths) -> bool:
    real = Path(os.path.realpath(folder))
    roots = [Path(os.path.realpath(each)) for each in paths.writable()]
    others = [Path(os.path.realpath(each)) for each in paths.read_only]
    ours = max((len(each.parts) for each in roots if real.is_relative_to(each)), default=0)
    theirs = max((len(each.parts) for each in others if real.is_relative_to(each)), default=0)
    return ours > 0 and ours >= theirs


def _outside(text: str, paths: ModelPaths) -> InvalidParameters:
    return InvalidParameters(
        f"The destination '{text[:200]}' does not lie below the folder of models. Give a path "
        f"relative to {paths.root}, such as llm/mistral-7b.",
        details={"field": "destination", "destination": text[:200], "reason": "outside"},
    )
