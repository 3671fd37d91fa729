"""Find models under folders without reading them: files, folders, other programs' stores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import _stores
from ._found import SUFFIXES, FoundFile, is_unfinished, repo_in, suffix_of
from ._layouts import Layout, layout_of
from ._types import Format

MAX_DEPTH = 8  # folders below a root
MAX_MEMBER_DEPTH = 3  # folders below one that is a model


@dataclass(slots=True)
class Walk:
    """The files that were found, and the places that could not be looked at, with the reason."""

    files: list[FoundFile] = field(default_factory=list)
    errors: list[tuple[Path, OSError]] = field(default_factory=list)
    _folders: set[tuple[int, int]] = field(default_factory=set)
    _seen: set[tuple[int, int, str]] = field(default_factory=set)

    def root(self, root: Path) -> None:
        """Look through one root; one that does not exist (yet) is no error."""
        try:
            self._folder(root, 0)
        except FileNotFoundError:
            return
        except OSError as error:
            self.errors.append((root, error))

    def file(self, path: Path) -> None:
        """Add a file by name, whatever its suffix."""
        try:
            form = SUFFIXES.get(suffix_of(path.name), Format.GGUF)
            self._add(str(path), path.name, path.stat(), form)
        except (OSError, ValueError) as error:
            self.errors.append((path, _as_os_error(error)))

    def _folder(self, folder: Path, depth: int) -> None:
        if not self._enter(folder):
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        names = {entry.name for entry in found}
        if _stores.is_ollama(names):
            self._ollama(folder)
        elif _stores.is_hub_repository(folder.name, names):
            self._hub(folder, depth)
        else:
            self._entries(folder, found, names, depth)

    def _entries(
        self, folder: Path, found: Sequence[os.DirEntry[str]], names: set[str], depth: int
    ) -> None:
        layout = layout_of(names)
        if layout is not None:
            self._model_folder(folder, found, names, layout)
        for entry in found:
            if is_unfinished(entry.name, names):
                continue
            try:
                self._entry(entry, depth, layout)
            except OSError as error:
                self.errors.append((Path(entry.path), error))

    def _enter(self, folder: Path) -> bool:
        """Note a folder by identity, so that links in a circle or overlapping roots end."""
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in self._folders:
            return False
        self._folders.add(identity)
        return True

    def _entry(self, entry: os.DirEntry[str], depth: int, layout: Layout | None) -> None:
        if entry.is_dir():
            # What lies below a folder that is a model belongs to it.
            if depth < MAX_DEPTH and layout is None:
                self._folder(Path(entry.path), depth + 1)
            return
        ending = suffix_of(entry.name)
        if ending and not (layout and layout.owns(entry.name)):
            self._add(entry.path, entry.name, entry.stat(), SUFFIXES[ending])

    def _model_folder(
        self, folder: Path, found: Sequence[os.DirEntry[str]], names: set[str], layout: Layout
    ) -> None:
        """Add a folder that is one model, unless one of its files is not finished."""
        if any(is_unfinished(name, names) for name in names if layout.owns(name)):
            return
        members = tuple(self._members(found, layout, 0))
        if members:
            status = folder.stat()
            self._put(
                FoundFile(
                    text=str(folder),
                    name=folder.name,
                    size=sum(each.size for each in members),
                    mtime_ns=max(each.mtime_ns for each in members),
                    inode=status.st_ino,
                    format=layout.format,
                    repo=repo_in(str(folder)),
                    members=members,
                ),
                status,
            )

    def _members(
        self, found: Iterable[os.DirEntry[str]], layout: Layout, depth: int
    ) -> Iterable[FoundFile]:
        for entry in found:
            if is_unfinished(entry.name):
                continue
            if entry.is_dir():
                if layout.nested and depth < MAX_MEMBER_DEPTH:
                    with os.scandir(entry.path) as below:
                        inside = sorted(below, key=lambda each: each.name)
                    yield from self._members(inside, layout, depth + 1)
            elif depth or layout.owns(entry.name):
                status = entry.stat()
                form = SUFFIXES.get(suffix_of(entry.name), layout.format)
                yield _found(entry.path, entry.name, status, form)

    def _hub(self, folder: Path, depth: int) -> None:
        """Look at a repository in the Hugging Face cache; each file counts in one revision."""
        repo = _stores.hub_repository(folder.name)
        seen: set[Path] = set()
        for snapshot in _stores.hub_snapshots(folder):
            inner = Walk(_folders=self._folders)
            try:
                inner._folder(snapshot, depth + 1)
            except OSError as error:
                self.errors.append((snapshot, error))
            for file in inner.files:
                relative = file.path.relative_to(snapshot)
                if relative not in seen:
                    seen.add(relative)
                    place = Path(repo) / relative
                    file.repo, file.place = repo, place
                    file.label = place.as_posix() if file.members else None
                    self._put(file, file.path.stat())
            self.errors += inner.errors

    def _ollama(self, folder: Path) -> None:
        for stored in _stores.ollama_models(folder):
            try:
                status = stored.path.stat()
            except OSError as error:
                self.errors.append((stored.path, error))
                continue
            file = FoundFile(
                text=str(stored.path),
                name=stored.path.name,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                inode=status.st_ino,
                place=Path("ollama", stored.name),
                label=stored.name,
                projector=stored.projector,
            )
            self.files.append(file)

    def _add(self, text: str, name: str, status: os.stat_result, form: Format) -> None:
        self._put(_found(text, name, status, form), status)

    def _put(self, file: FoundFile, status: os.stat_result) -> None:
        # A file by the same name twice is one model (two revisions in a download cache link to one
        # blob); by another name it is an alias that somebody wanted.
        identity = (status.st_dev, status.st_ino, file.name)
        if identity not in self._seen:
            self._seen.add(identity)
            self.files.append(file)


def walk(roots: Iterable[Path], extra_files: Iterable[Path]) -> Walk:
    """Collect the models below `roots` and the `extra_files`."""
    result = Walk()
    for root in roots:
        result.root(Path(root))
    for path in extra_files:
        result.file(Path(path))
    return result


def _found(text: str, name: str, status: os.stat_result, form: Format) -> FoundFile:
    repo = repo_in(text[: -len(name)])
    return FoundFile(text, name, status.st_size, status.st_mtime_ns, status.st_ino, form, repo)


def _as_os_error(error: OSError | ValueError) -> OSError:
    return error if isinstance(error, OSError) else FileNotFoundError(str(error))
