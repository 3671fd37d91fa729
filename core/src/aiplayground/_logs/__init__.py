"""Logs of one kernel: a file with rotation and a live stream for each service.

Nothing here is registered with the standard library's logger tree, so neither the root logger
nor an embedder's configuration sees or changes it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ._files import LogWriter
from ._redact import hiding, redact

__all__ = ["KERNEL", "LogHub", "LogLine", "LogStream", "ServiceLog", "hiding", "redact"]

KERNEL = "kernel"
"""The name of the kernel's own log; no service may have it."""

RING_LINES = 1000
STREAM_LINES = 1000
MAX_LINE = 16_384
"""Characters of one line that are kept."""
CLOSE_TIMEOUT = 2.0
"""Seconds that the disk gets at the end."""

Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: `time` in seconds since 1970, `level` a name of the logging module in lower case.

    `seq` counts the lines of one service from 1; a gap in a stream means dropped lines.
    """

    seq: int
    time: float
    level: str
    source: str
    text: str

    @property
    def timestamp(self) -> str:
        """The time as ISO 8601 in UTC, with milliseconds."""
        return datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")

    def render(self) -> str:
        """Return the line as the log file has it."""
        return f"{self.timestamp} {self.level.upper():<7} {self.source}: {self.text}"


class LogStream:
    """An async iterator over a service's lines; holds `STREAM_LINES` and drops the oldest.

    Lines arrive from any thread; it is read in the event loop that was running when it was made.
    `dropped` counts what the reader was too slow for.
    """

    def __init__(self, backlog: list[LogLine], forget: Callable[[LogStream], None]) -> None:
        self.dropped = 0
        self._lines = deque(backlog, maxlen=STREAM_LINES)
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        while True:
            # Cleared before looking, so that a line which arrives after the look wakes us.
            self._news.clear()
            try:
                return self._lines.popleft()
            except IndexError:
                if self._ended:
                    raise StopAsyncIteration from None
            await self._news.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream, from any thread; what is waiting can still be read."""
        self._forget(self)
        self.end()

    def offer(self, line: LogLine) -> None:
        """Take a line. Called by the service's log, under its lock."""
        if len(self._lines) == STREAM_LINES:
            self.dropped += 1
        self._lines.append(line)
        self._wake()

    def end(self) -> None:
        """Let the reader stop once it has read the rest."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            # The reader's loop is closed, so nobody waits.
            self._ended = True


class ServiceLog:
    """The log of one service: recent lines in memory, all lines in its file, live streams."""

    def __init__(self, name: str, path: Path, writer: LogWriter, level: int, hide: Redact) -> None:
        self.name = name
        self.path = path
        self.logger: logging.Logger = _PrivateLogger(name, self)
        """A logger that no other knows; it writes here and nowhere else."""
        self.logger.setLevel(level)
        self._writer = writer
        self._hide = hide
        # Entered again by the same thread when a finaliser logs.
        self._lock = threading.RLock()
        self._ring: deque[LogLine] = deque(maxlen=RING_LINES)
        self._streams: list[LogStream] = []
        self._seq = 0
        self._told = False
        self._closed = False

    def line(self, source: str, text: str, level: int = logging.INFO) -> None:
        """Add what a worker said. Never blocks on the disk and never raises."""
        self._add(source, text, level)
        if self._writer.errors and not self._told:
            # Once: a full disk would otherwise fill the memory with its own complaint.
            self._told = True
            cause = f"log lines cannot be written to {self.path.parent}: {self._writer.last_error}"
            self._add(KERNEL, f"{cause}; they are kept in memory only", logging.WARNING)

    def tail(self, count: int = RING_LINES) -> list[LogLine]:
        """Return the last lines, oldest first; `RING_LINES` at most."""
        with self._lock:
            return list(self._ring)[-count:] if count > 0 else []

    def follow(self, backlog: int = 0) -> LogStream:
        """Return a stream that starts with the last `backlog` lines, without gap or double.

        Call it where an event loop runs. It ends when it or this log is closed.
        """
        with self._lock:
            recent = list(self._ring)[-backlog:] if backlog > 0 else []
            stream = LogStream(recent, self._forget)
            if self._closed:
                stream.end()
            else:
                self._streams.append(stream)
            return stream

    def close(self) -> None:
        """End all streams. Lines that still come are kept in memory alone."""
        with self._lock:
            self._closed = True
            streams, self._streams = self._streams, []
        for stream in streams:
            stream.end()

    def _add(self, source: str, text: str, level: int) -> None:
        text = self._hide(text.rstrip("\r\n"))
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}… ({len(text) - MAX_LINE} more characters)"
        # Sequence, memory, streams and file agree on the order because of the lock.
        with self._lock:
            self._seq += 1
            name = logging.getLevelName(level).lower()
            line = LogLine(self._seq, time.time(), name, source, text)
            self._ring.append(line)
            for stream in self._streams:
                stream.offer(line)
            if not self._closed:
                self._writer.write(self.path, line.render())

    def _forget(self, stream: LogStream) -> None:
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)


class LogHub:
    """All logs of one kernel, and the one thread that writes them.

    `folder` holds one file for each service; `level` is the least severe that a logger keeps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 5 * 1024 * 1024,
        backups: int = 3,
        level: str = "info",
        redact: Redact = redact,
    ) -> None:
        self._folder = folder
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._redact = redact
        self._writer = LogWriter(max_bytes=max_bytes, backups=backups)
        self._logs: dict[str, ServiceLog] = {}

    @property
    def write_errors(self) -> int:
        """Lines that are in no file, because the disk refused them or was too slow."""
        return self._writer.errors + self._writer.lost

    def service(self, name: str) -> ServiceLog:
        """Return the log of a service, the same one each time."""
        if name not in self._logs:
            path = self._folder / f"{name}.log"
            self._logs[name] = ServiceLog(name, path, self._writer, self._level, self._redact)
        return self._logs[name]

    def flush(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Wait (blocking) until the files have all lines; False after `timeout` seconds."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """End the streams, then the thread; blocks for `timeout` seconds at most.

        In an event loop, call it in a thread. Returns False if the disk did not take the rest.
        """
        for log in self._logs.values():
            log.close()
        return self._writer.close(timeout)


class _PrivateLogger(logging.Logger):
    """A logger outside the tree: its children, too, write to the one log."""

    def __init__(self, name: str, log: ServiceLog, source: str | None = None) -> None:
        super().__init__(name)
        self.propagate = False
        self._log_to = log
        self._source = source or name

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        # Without `logging.disable`, which is the embedder's switch for the embedder's loggers.
        return level >= self.level

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        # No handler: the standard library lists each one globally, and this needs none.
        self._log_to.line(self._source, _message(record), record.levelno)

    def getChild(self, suffix: str) -> Self:  # noqa: N802 - the standard library's name
        child = type(self)(f"{self.name}.{suffix}", self._log_to, source=suffix)
        child.setLevel(self.level)
        return child


_FORMAT = logging.Formatter("%(message)s")


def _message(record: logging.LogRecord) -> str:
    try:
        return _FORMAT.format(record)
    except (TypeError, ValueError, KeyError) as error:
        # A wrong format string in a plugin costs its line its looks, never the request its answer.
        return f"{record.msg!r} with {record.args!r} ({error})"
