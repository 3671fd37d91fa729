"""A bounded position in a file: every count is checked against the file before it is believed.

The file is read through a window and never mapped into memory: a mapped file that another program
shortens ends this process with SIGBUS. What is skipped is sought over.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Literal

MAX_READ = 64 << 20  # bytes that may pass through the window; vocabularies take about 10 MiB
WINDOW = 256 << 10

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_unpack_length = _U64.unpack_from


class Malformed(Exception):
    """What is wrong with the bytes; `reason` is one of GgufError's."""

    def __init__(self, reason: Literal["truncated", "corrupt"], text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Cursor:
    """A forward position in a file of known size, read through a window."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._base = 0  # file offset of the window's first byte
        self._window = b""
        self._pos = 0  # position in the window; beyond its end after a long skip
        self._read = 0

    @property
    def offset(self) -> int:
        """Bytes from the start of the file."""
        return self._base + self._pos

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self.offset

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self._need(count)
        start = self._pos
        self._pos += count
        return self._window[start : self._pos]

    def skip(self, count: int) -> None:
        """Pass over `count` bytes without reading them."""
        self._check(count)
        self._pos += count

    def u32(self) -> int:
        """Return the next uint32."""
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        """Return the next uint64."""
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def length(self, limit: int, each: int, what: str) -> int:
        """Return the next uint64 as a count of `what`, each of at least `each` bytes.

        Over `limit` it is nonsense, and beyond the end of the file the rest is missing: either way
        nothing has been allocated for it.
        """
        count = self.u64()
        if count > limit:
            raise Malformed("corrupt", f"it claims {count} {what}")
        self._check(count * each)
        return count

    def name(self, limit: int, what: str) -> str:
        """Return a non-empty UTF-8 string of at most `limit` bytes."""
        length = self.length(limit, 1, f"bytes for {what}")
        if not length:
            raise Malformed("corrupt", f"{what} is empty")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise Malformed("corrupt", f"{what} is not text") from None

    def skip_strings(self, count: int) -> None:
        """Pass over `count` length-prefixed strings; the hot loop of reading a vocabulary."""
        while count:
            self._need(8)
            self._pos, done = _skip_in(self._window, self._pos, count)
            self._check(0)
            count -= done

    def _check(self, count: int) -> None:
        if count > self.remaining:
            raise Malformed("truncated", f"it ends inside its header, at {self._size} bytes")

    def _need(self, count: int) -> None:
        self._check(count)
        if self._pos + count <= len(self._window):
            return
        self._base, self._pos = self.offset, 0
        self._file.seek(self._base)
        self._window = self._file.read(max(count, WINDOW))
        self._read += len(self._window)
        if len(self._window) < count:
            raise Malformed("truncated", "it became shorter while it was being read")
        if self._read > MAX_READ:
            raise Malformed("corrupt", f"its header has more than {MAX_READ} bytes")


def _skip_in(window: bytes, pos: int, count: int) -> tuple[int, int]:
    """Step over up to `count` strings in the window; return the new position and how many."""
    done = 0
    try:
        for done in range(count):  # noqa: B007 - counts the steps that were taken, for the except
            (length,) = _unpack_length(window, pos)
            pos += 8 + length
    except (struct.error, OverflowError):
        # The next length lies outside the window; one beyond the file is for the caller to judge.
        return pos, done
    return pos, count
