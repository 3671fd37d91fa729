"""What the walk over the folders finds: files and folders by their names alone, unread."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ._types import Format

SUFFIXES = {
    ".gguf": Format.GGUF,
    ".safetensors": Format.SAFETENSORS,
    ".sft": Format.SAFETENSORS,
    ".ckpt": Format.PICKLE,
    ".pt": Format.PICKLE,
    ".pth": Format.PICKLE,
}
"""Endings of files that are models by themselves."""

PARTIAL = (".incomplete", ".part", ".partial", ".aria2", ".tmp", ".download", ".crdownload")
"""Endings of files and folders that a program still writes to."""

ARIA2 = ".aria2"
"""Ending of the file that lies beside what aria2 has not finished, under its final name."""

# llama.cpp's SPLIT_PREFIX_FORMAT is "%s-%05d-of-%05d.gguf"; transformers writes the same form.
_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


@dataclass(slots=True, eq=False)
class FoundFile:
    """One file as the walk saw it; `size` in bytes, `mtime_ns` as `os.stat` has it.

    For a folder that is one model, `members` are its files, and `size` is theirs together. `place`
    is a path that people would know it by, where its own says nothing; `label` its name, where that
    is not its file's; `projector` the one that its program keeps with it.
    """

    text: str
    name: str
    size: int
    mtime_ns: int
    inode: int = 0
    format: Format = Format.GGUF
    repo: str | None = None
    place: Path | None = None
    label: str | None = None
    projector: Path | None = None
    members: tuple[FoundFile, ...] = ()
    _path: Path | None = None

    @property
    def path(self) -> Path:
        """Return its path: made once, since that costs more than all else here."""
        if self._path is None:
            self._path = Path(self.text)
        return self._path

    @property
    def folder(self) -> str:
        """Return the folder that it lies in, as text."""
        return self.text[: -len(self.name)]

    @property
    def stem(self) -> str:
        """Return the name of what it is or is a part of."""
        return self.label or (self.name if self.members else stem_of(self.name))


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

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return every file; of a folder, those that belong to the model."""
        first = self.files[0]
        return tuple(file.path for file in first.members or self.files)


def is_unfinished(name: str, beside: Collection[str] = ()) -> bool:
    """Say whether a file or folder is hidden or still written to; `beside` are its neighbours."""
    return name.startswith(".") or name.lower().endswith(PARTIAL) or (f"{name}{ARIA2}" in beside)


def suffix_of(name: str) -> str:
    """Return the ending that makes a file a model, or an empty string."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    return ending if ending in SUFFIXES else ""


def stem_of(name: str) -> str:
    """Return a file's name without an ending such as `.gguf`."""
    ending = suffix_of(name)
    return name[: -len(ending)] if ending else name


def split_name(name: str) -> SplitName | None:
    """Take a name like `x-00002-of-00003.gguf` apart; None if it is not of that form."""
    match = _SPLIT.match(stem_of(name)) if "-of-" in name else None
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    return SplitName(match["stem"], number, count) if 1 <= number <= count else None


def repo_in(folder: str) -> str | None:
    """Return the repository that a folder's path has: `models--owner--name`, `owner---name`."""
    if "--" not in folder:
        return None
    for part in reversed(Path(folder).parts):
        if part.startswith("models--") and part.count("--") == 2:
            return "/".join(part.split("--")[1:])
        if part.count("---") == 1:
            return part.replace("---", "/")
    return None


def group_files(files: Sequence[FoundFile]) -> Iterator[FileGroup]:
    """Put the parts of each split model together, in order; every other file is its own group."""
    sets: dict[tuple[str, str, int, str], dict[int, FoundFile]] = {}
    for file in files:
        split = None if file.members or file.label else split_name(file.name)
        if split is None:
            yield FileGroup(file.stem, [file])
        else:
            key = (file.folder, split.stem, split.count, suffix_of(file.name))
            sets.setdefault(key, {})[split.number] = file
    for (_, stem, count, ending), parts in sets.items():
        missing = tuple(
            f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in _first_absent(parts, count)
        )
        yield FileGroup(stem, [parts[number] for number in sorted(parts)], missing)


def _first_absent(parts: Iterable[int], count: int, limit: int = 5) -> list[int]:
    """Name some absent numbers: a name may claim 99999 parts."""
    there = set(parts)
    absent = (number for number in range(1, count + 1) if number not in there)
    return [number for number, _ in zip(absent, range(limit), strict=False)]


def same_model(one: Path, other: Path) -> bool:
    """Say whether two files are parts of one split model, by their names."""
    first, second = split_name(one.name), split_name(other.name)
    return (
        first is not None
        and second is not None
        and one.parent == other.parent
        and (first.stem, first.count) == (second.stem, second.count)
    )
