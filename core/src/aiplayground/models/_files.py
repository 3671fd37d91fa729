"""Find GGUF files under folders and group the parts of split models, without reading them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEPTH = 8  # folders below a root
MODEL_SUFFIX = ".gguf"
# llama.cpp's SPLIT_PREFIX_FORMAT is "%s-%05d-of-%05d.gguf"
_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file as the walk saw it; `size` in bytes, `mtime_ns` as `os.stat` has it."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class SplitName:
    """What a file's name says about its place in a split model; `number` counts from 1."""

    stem: str
    number: int
    count: int


@dataclass(slots=True)
class FileGroup:
    """The files that make up one model, as their names have it, and the parts that are absent."""

    stem: str
    files: list[FoundFile] = field(default_factory=list)
    missing: tuple[str, ...] = ()


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
            self._add(path, path.stat())
        except (OSError, ValueError) as error:
            self.errors.append((path, _as_os_error(error)))

    def _folder(self, folder: Path, depth: int) -> None:
        if not self._enter(folder):
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            try:
                self._entry(entry, depth)
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

    def _entry(self, entry: os.DirEntry[str], depth: int) -> None:
        if entry.name.startswith("."):
            return
        if entry.is_dir():
            if depth < MAX_DEPTH:
                self._folder(Path(entry.path), depth + 1)
        # Partial downloads end in .part, .incomplete or .tmp, and so drop out here.
        elif entry.name.lower().endswith(MODEL_SUFFIX):
            path = Path(entry.path)
            self._add(path, path.stat())

    def _add(self, path: Path, status: os.stat_result) -> None:
        # A file by the same name twice is one model (two revisions in a download cache link to one
        # blob); by another name it is an alias that somebody wanted.
        identity = (status.st_dev, status.st_ino, path.name)
        if identity not in self._seen:
            self._seen.add(identity)
            self.files.append(FoundFile(path, status.st_size, status.st_mtime_ns))


def walk(roots: Iterable[Path], extra_files: Iterable[Path]) -> Walk:
    """Collect the GGUF files below `roots` and the `extra_files`."""
    result = Walk()
    for root in roots:
        result.root(Path(root))
    for path in extra_files:
        result.file(Path(path))
    return result


def stem_of(name: str) -> str:
    """Return a file's name without `.gguf`."""
    return name[: -len(MODEL_SUFFIX)] if name.lower().endswith(MODEL_SUFFIX) else name


def split_name(name: str) -> SplitName | None:
    """Take a name like `x-00002-of-00003.gguf` apart; None if it is not of that form."""
    match = _SPLIT.match(stem_of(name))
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    return SplitName(match["stem"], number, count) if 1 <= number <= count else None


def group_files(files: Sequence[FoundFile]) -> Iterator[FileGroup]:
    """Put the parts of each split model together, in order; every other file is its own group."""
    sets: dict[tuple[Path, str, int], dict[int, FoundFile]] = {}
    for file in files:
        split = split_name(file.path.name)
        if split is None:
            yield FileGroup(stem_of(file.path.name), [file])
        else:
            sets.setdefault((file.path.parent, split.stem, split.count), {})[split.number] = file
    for (_, stem, count), parts in sets.items():
        missing = tuple(
            f"{stem}-{number:05d}-of-{count:05d}{MODEL_SUFFIX}"
            for number in _first_absent(parts, count)
        )
        yield FileGroup(stem, [parts[number] for number in sorted(parts)], missing)


def _first_absent(parts: dict[int, FoundFile], count: int, limit: int = 5) -> list[int]:
    """Name some absent numbers: a name may claim 99999 parts."""
    absent = (number for number in range(1, count + 1) if number not in parts)
    return [number for number, _ in zip(absent, range(limit), strict=False)]


def _as_os_error(error: OSError | ValueError) -> OSError:
    return error if isinstance(error, OSError) else FileNotFoundError(str(error))
