"""The one authority on where models lie: every backend, method and command asks here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiplayground.errors import InvalidParameters

from ._external import external_folders
from ._kinds import KINDS, checked_kind, kind_named

if TYPE_CHECKING:
    from aiplayground.paths import Paths
    from aiplayground.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """The folders with models. Nothing is created, and nothing has to exist.

    `root` is ours; `folders` has one for each kind, below the root unless a setting says
    otherwise; `read_only` are folders of the user and of other programs, where nothing is written
    and nothing removed.
    """

    root: Path
    folders: Mapping[str, Path]
    read_only: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls, paths: Paths, settings: ModelSettings, environ: Mapping[str, str] = os.environ
    ) -> ModelPaths:
        """Return the folders that a home and its settings say.

        `environ` moves the folders of other programs (`HF_HOME`, `OLLAMA_MODELS`).
        """
        root = _normal(settings.root or paths.models)
        given = {kind: getattr(settings.paths, kind) for kind in KINDS}
        folders = {kind: _normal(given[kind] or root / each.folder) for kind, each in KINDS.items()}
        external = (external_folders(entry, environ) for entry in settings.external)
        read_only = [
            *map(_normal, settings.folders),
            *(_normal(folder) for each in external for folder in each),
        ]
        return cls(root, MappingProxyType(folders), tuple(dict.fromkeys(read_only)))

    def folder(self, kind: str) -> Path:
        """Return the folder of a kind of model. Raises `InvalidParameters` for an unknown one."""
        return self.folders[checked_kind(kind)]

    def roots(self) -> tuple[Path, ...]:
        """Return every folder that is looked through, ours first."""
        return tuple(dict.fromkeys((*self.writable(), *self.read_only)))

    def writable(self) -> tuple[Path, ...]:
        """Return the folders that are ours: the root, and those that settings put elsewhere."""
        elsewhere = (each for each in self.folders.values() if not each.is_relative_to(self.root))
        return tuple(dict.fromkeys((self.root, *elsewhere)))

    def is_writable(self, path: Path) -> bool:
        """Say whether a file is ours to remove. Looks at the disk.

        Links in its folder's path are followed: what lies behind one is somebody else's.
        """
        parent = path.absolute().parent.resolve()
        ours = _deepest(parent, self.writable())
        return ours > 0 and ours >= _deepest(parent, self.read_only)

    def kind_of(self, path: Path) -> str | None:
        """Return the kind whose folder a file lies in: by the settings, or by a folder's name."""
        found = [kind for kind, folder in self.folders.items() if path.is_relative_to(folder)]
        if found:
            return max(found, key=lambda kind: len(self.folders[kind].parts))
        for root in self.roots():
            if path.is_relative_to(root):
                names = path.relative_to(root).parts[:-1]
                return next(filter(None, map(kind_named, (root.name, *names)[::-1])), None)
        return None

    def resolve(self, text: str) -> Path:
        """Return the path that a text means; nothing has to exist there.

        An absolute path must lie in one of the folders. A relative one is looked for in each of
        them, and means the first where something is, else our own; `llm/x` and the like mean the
        folder of that kind, wherever it is. Looks at the disk. Raises `InvalidParameters`.
        """
        if not text.strip() or "\x00" in text:
            raise InvalidParameters("'path' must name a file or folder.", details={"field": "path"})
        given = Path(text.replace("\\", "/") if os.name == "posix" else text)
        found = list(self._inside(given))
        if not found:
            raise self._outside(text)
        return next((path for path in found if _exists(path)), found[0])

    def _inside(self, given: Path) -> Iterable[Path]:
        """Yield what a path may mean, nothing outside the folders."""
        if given.is_absolute():
            path = _normal(given)
            if any(path.is_relative_to(_normal(root)) for root in self.roots()):
                yield path
            return
        kind = kind_named(given.parts[0]) if given.parts else None
        if kind is not None:
            yield from _below(self.folders[kind], Path(*given.parts[1:]))
        for root in self.roots():
            yield from _below(root, given)

    def _outside(self, text: str) -> InvalidParameters:
        return InvalidParameters(
            f"'{text}' lies outside the folders with models: {', '.join(map(str, self.roots()))}. "
            "Give a path relative to one of them; the setting 'models.folders' adds others.",
            details={"field": "path", "path": text, "reason": "outside"},
        )


def _below(root: Path, given: Path) -> Iterable[Path]:
    base = _normal(root)
    path = _normal(base / given)
    if path.is_relative_to(base):
        yield path


def _normal(path: Path) -> Path:
    # As text: `..` must not leave a root, while links in it lead where the user wants them to.
    return Path(os.path.abspath(path))  # noqa: PTH100 - pathlib has no normalisation without the disk


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # a name too long, or one that no file system takes


def _deepest(path: Path, folders: Iterable[Path]) -> int:
    """Return how deep the deepest of the folders lies that hold a path; 0 if none does."""
    resolved = (folder.resolve() for folder in folders)
    return max((len(each.parts) for each in resolved if path.is_relative_to(each)), default=0)
