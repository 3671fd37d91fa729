"""What downloads that did not end have left: found, shown, removed.

A partial file is named by its content (see `fetcher.item`); beside it is a note of what it is, and
the lock of whoever works on it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .place import HIDDEN

PART, WHOLE, NOTE, LOCK = ".part", ".whole", ".json", ".lock"
"""What is on its way, what is complete and checked, what it is, and who works on it."""

DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """The part of a file; sizes in bytes, `changed` in seconds since 1970.

    `repo` and `file` are empty where nothing says what it is; `place` is its path without suffix.
    """

    place: Path
    repo: str
    file: str
    size: int
    total: int | None
    changed: float

    @property
    def lock(self) -> Path:
        """The lock of whoever works on it."""
        return _beside(self.place, LOCK)

    def busy(self) -> bool:
        """Whether a download works on it now. Raises `OSError`."""
        from filelock import FileLock, Timeout

        if not self.lock.exists():
            return False
        try:
            with FileLock(self.lock, timeout=0):
                return False
        except Timeout:
            return True

    def remove(self) -> bool:
        """Remove it, unless a download works on it. Raises `OSError`."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.lock, timeout=0):
                for suffix in (PART, WHOLE, NOTE):
                    _beside(self.place, suffix).unlink(missing_ok=True)
        except Timeout:
            return False
        self.lock.unlink(missing_ok=True)
        return True


def find_partials(folders: Iterable[Path]) -> list[Partial]:
    """Return what lies in folders of ours, what changed longest ago first. Raises `OSError`."""
    found = (each for folder in dict.fromkeys(folders) for each in _in_folder(folder / HIDDEN))
    return sorted(found, key=lambda each: each.changed)


def write_note(place: Path, repo: str, file: str, total: int | None) -> None:
    """Say what a partial file is. Raises `OSError`."""
    told = {"repo": repo, "file": file, "size": total}
    _beside(place, NOTE).write_text(json.dumps(told), encoding="utf-8")


def forget(place: Path) -> None:
    """Remove what was beside a file that is in its place now. Raises `OSError`."""
    for suffix in (NOTE, LOCK):
        _beside(place, suffix).unlink(missing_ok=True)


def sweep(base: Path, *, before: float, but: Collection[Path]) -> int:
    """Remove what has not changed since a moment, `but` what is wanted; return the bytes.

    What cannot be removed stays: that is no reason not to download.
    """
    freed = 0
    with suppress(OSError):
        for each in find_partials([base]):
            if each.changed < before and each.place not in but and each.remove():
                freed += each.size
    return freed


def _in_folder(folder: Path) -> Iterator[Partial]:
    if not folder.is_dir():
        return
    suffixes = (PART, WHOLE)
    for name in sorted({each.stem for each in folder.iterdir() if each.suffix in suffixes}):
        place = folder / name
        there = [path for suffix in suffixes if (path := _beside(place, suffix)).is_file()]
        with suppress(FileNotFoundError):  # its download ended a moment ago
            status = [path.stat() for path in there]
            told = _note(_beside(place, NOTE))
            yield Partial(
                place=place,
                repo=str(told.get("repo", "")),
                file=str(told.get("file", "")),
                size=sum(each.st_size for each in status),
                total=told["size"] if isinstance(told.get("size"), int) else None,
                changed=max((each.st_mtime for each in status), default=0.0),
            )


def _note(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # none, or torn by a crash: it only names things
    return told if isinstance(told, dict) else {}


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)
