"""A file of a download, and where its bytes are until it is in its place.

A partial file is named after its content (its checksum at the Hub), so it serves any revision,
repository or mirror that has the same file, and can never be taken for another one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiplayground_models.partial import PART, WHOLE
from aiplayground_models.selection import RemoteFile

from .hashing import check, new_digest


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a download; `part` is its path without the suffix while it is not in place."""

    file: RemoteFile
    target: Path
    part: Path

    @property
    def partial(self) -> Path:
        """Where its bytes come to."""
        return self.part.with_name(self.part.name + PART)

    @property
    def whole(self) -> Path:
        """Where it waits, complete and checked, until everything is there."""
        return self.part.with_name(self.part.name + WHOLE)

    def here(self) -> int:
        """Return how many bytes of it are here already."""
        return max(size_of(self.partial), size_of(self.whole))


def part_name(repo: str, commit: str, file: RemoteFile) -> str:
    """Return the name of a partial file, without its suffix."""
    known = file.sha256 or (f"{file.sha1}-{file.size}" if file.sha1 else None)
    if known is None:
        known = hashlib.sha256(f"{repo}\n{commit}\n{file.path}".encode()).hexdigest()
    return known


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_there(item: Item) -> bool:
    """Whether the file is in place already, with this very content. Raises `OSError`."""
    file, target = item.file, item.target
    if not target.is_file() or (file.size is not None and size_of(target) != file.size):
        return False
    digest = new_digest(file.sha256, file.sha1, file.size)
    return digest is not None and check(target, digest) == (file.sha256 or file.sha1)
