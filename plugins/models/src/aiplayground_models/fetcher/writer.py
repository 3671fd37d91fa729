"""Writes a partial file, from where it ended, and checks it on the way."""

from __future__ import annotations

from typing import IO

from .faults import Later
from .hashing import Follower, new_digest
from .item import Item
from .report import Reporter

WATCHED = 2**18
"""Bytes between two words to the checksum."""


class Writer:
    """Writes a partial file, and checks it on the way. Use it as a context manager."""

    def __init__(self, item: Item, reporter: Reporter) -> None:
        self._item = item
        self._reporter = reporter
        self._file: IO[bytes] | None = None
        self._follower: Follower | None = None
        self._expected = item.file.size
        self._complete = False
        self._told = 0
        self.size = 0

    def __enter__(self) -> Writer:
        path = self._item.partial
        # Unbuffered: what was written stays when this process is killed.
        self._file = path.open("ab", buffering=0)
        self.size = path.stat().st_size
        if self._expected is not None and self.size > self._expected:
            self._file.truncate(0)
            self.size = 0
        self._follow()
        self._tell()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._follower is not None:
            self._follower.close()
        if self._file is not None:
            self._file.close()

    def restart(self, size: int) -> None:
        """Go on from a byte: what is behind it goes."""
        if size == self.size or self._file is None:
            return
        if self._follower is not None:
            self._follower.close()
        self._file.truncate(size)
        self.size = size
        self._follow()
        self._tell()

    def expect(self, left: int | None) -> None:
        """Learn from an answer's length how long the file is, where the Hub did not say."""
        if self._item.file.size is None and left is not None:
            self._expected = self.size + left

    def write(self, block: bytes) -> None:
        """Append bytes. Raises `Later` when they are more than there should be."""
        assert self._file is not None
        view = memoryview(block)
        if self._expected is not None and self.size + len(view) > self._expected:
            self.restart(0)
            raise Later("the server sends more than the file has; from the beginning")
        while view:
            written = self._file.write(view) or 0
            self.size += written
            view = view[written:]
        self._reporter.progress(self._item.file.path, self.size)
        if self._follower is not None and self.size - self._told >= WATCHED:
            self._told = self.size
            self._follower.written(self.size)

    def ended(self) -> None:
        """Take note that an answer ended. Raises `Later` if that was too early."""
        if self._expected is not None and self.size < self._expected:
            raise Later(f"the connection ended at {self.size} of {self._expected} bytes")
        self._complete = True

    def is_complete(self) -> bool:
        """Whether all bytes are here."""
        return self._complete or (self._expected is not None and self.size == self._expected)

    def is_right(self) -> bool:
        """Whether the content is what the Hub lists."""
        self._tell()
        if self._follower is None:
            return True
        file = self._item.file
        return self._follower.result(self.size) == (file.sha256 or file.sha1)

    def _follow(self) -> None:
        file = self._item.file
        digest = new_digest(file.sha256, file.sha1, file.size)
        self._follower = Follower(self._item.partial, digest) if digest else None

    def _tell(self) -> None:
        self._told = self.size
        if self._follower is not None:
            self._follower.written(self.size)
        self._reporter.progress(self._item.file.path, self.size)
