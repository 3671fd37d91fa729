"""What a child prints, as lines: decoding and splitting, and reading without blocking the loop."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import Callable

LINE_LIMIT = 16 * 1024
"""Characters; a longer line is delivered in pieces."""

CHUNK = 16 * 1024
"""Bytes read per turn of the loop, so that a child that floods its output starves nobody."""

_AHEAD = 4  # chunks that a reading thread may be ahead of the loop


class LineSplitter:
    """Turns chunks of bytes into lines of text.

    Undecodable bytes become U+FFFD. A carriage return ends a line too (progress bars). Blank lines
    are dropped. Never holds more than `LINE_LIMIT` characters.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        text = self._rest + self._decoder.decode(data)
        *whole, rest = text.replace("\r", "\n").split("\n")
        full = len(rest) - len(rest) % LINE_LIMIT
        self._rest = rest[full:]
        return [piece for line in (*whole, rest[:full]) for piece in _pieces(line)]

    def finish(self) -> list[str]:
        """Return what is left at end of file."""
        text = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return list(_pieces(text))


def _pieces(line: str) -> list[str]:
    return [line[at : at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT)]


class OutputReader:
    """Reads a pipe to its end and owns its descriptor; calls back in the loop."""

    def __init__(
        self,
        fd: int,
        on_line: Callable[[str], None],
        on_end: Callable[[], None],
        *,
        threaded: bool = sys.platform == "win32",
    ) -> None:
        """Start reading `fd` for the running loop; `on_end` is called at end of file only.

        `threaded`: with a thread, because the loops of Windows cannot watch a pipe of ours.
        """
        self.ended = False
        self._fd = fd
        self._on_line = on_line
        self._on_end = on_end
        self._lines = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._threaded = threaded
        if threaded:
            threading.Thread(target=self._run, name="child-output", daemon=True).start()
        else:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Stop reading and deliver what is incomplete; idempotent. A child may still hold it."""
        if self.ended:
            return
        self.ended = True
        self._emit(self._lines.finish())
        if not self._threaded:  # a thread closes its descriptor itself, when it comes back
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self.ended:
            return
        if data:
            self._emit(self._lines.feed(data))
        else:
            self.close()
            self._on_end()

    def _emit(self, lines: list[str]) -> None:
        for line in lines:
            try:
                self._on_line(line)
            except Exception as error:  # noqa: BLE001  one bad line must not end the reading
                self._loop.call_exception_handler(
                    {"message": "Error in the receiver of a child's output", "exception": error}
                )

    def _run(self) -> None:
        room = threading.Semaphore(_AHEAD)

        def receive(data: bytes) -> None:
            room.release()
            self._receive(data)

        try:
            data = b"start"
            while data and not self.ended:
                data = os.read(self._fd, CHUNK)
                while not room.acquire(timeout=1):
                    if self._loop.is_closed():
                        return
                self._loop.call_soon_threadsafe(receive, data)
        except RuntimeError:
            return  # the loop is closed: nobody is left to read for
        finally:
            os.close(self._fd)
