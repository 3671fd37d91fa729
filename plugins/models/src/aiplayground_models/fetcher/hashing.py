"""Checksums while a file grows: a thread reads behind the writer, from the system's own cache."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Protocol

BLOCK = 2**22
"""Bytes that are hashed at a time: large, since each takes the interpreter's lock twice."""


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """Return what they come to."""


def new_digest(sha256: str | None, sha1: str | None, size: int | None) -> Digest | None:
    """Return what checks a file; None if nothing is known to check it by.

    Large files of the Hub have the SHA-256 of their content; others what Git calls a blob: SHA-1
    over a header and the content.
    """
    if sha256:
        return hashlib.sha256()
    if sha1 and size is not None:
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return None


class Follower:
    """Hashes a file that is being written, from its beginning. Close it."""

    def __init__(self, path: Path, digest: Digest) -> None:
        self._digest = digest
        self._file = path.open("rb", buffering=0)
        self._ready = threading.Condition()
        self._written = 0
        self._ended = False
        self._gone = False
        self._failed: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="checksum", daemon=True)
        self._thread.start()

    def written(self, size: int) -> None:
        """Say how much is there; it never shrinks."""
        self._written = size
        if self._ready.acquire(blocking=False):  # the thread looks again anyway
            try:
                self._ready.notify()
            finally:
                self._ready.release()

    def result(self, size: int) -> str:
        """Wait until `size` bytes are hashed; return the checksum. Raises `OSError`."""
        with self._ready:
            self._written, self._ended = size, True
            self._ready.notify()
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop, whatever is left."""
        with self._ready:
            self._ended = self._gone = True
            self._ready.notify()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        done = 0
        try:
            while not self._gone:
                left = self._written - done
                if left >= BLOCK or (self._ended and left):
                    data = self._file.read(min(left, BLOCK))
                    if not data:
                        raise OSError("the file became shorter while it was read")
                    self._digest.update(data)
                    done += len(data)
                    continue
                with self._ready:
                    if self._ended and self._written == done:
                        return
                    if self._written - done < BLOCK and not self._ended:
                        self._ready.wait(1.0)
        except OSError as error:
            self._failed = error


def check(path: Path, digest: Digest) -> str:
    """Return the checksum of a whole file."""
    with path.open("rb", buffering=0) as file:
        while data := file.read(BLOCK):
            digest.update(data)
    return digest.hexdigest()
