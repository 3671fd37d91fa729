"""Writing log files from a thread of their own, so that no disk can hold up the event loop."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from itertools import groupby
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NamedTuple, TypeAlias

QUEUE_SIZE = 10_000
"""Lines that wait for the disk at most; further ones are counted and not written."""

PAUSE = 0.05
"""Seconds that the thread lets lines gather: waking it for each would cost requests their time."""

TOGETHER = 65_536
"""Characters that are written at once."""


class _Line(NamedTuple):
    path: Path
    text: str


_Item: TypeAlias = "_Line | threading.Event | None"
"""A line, somebody who waits until it is written, or the end."""


class LogWriter:
    """Appends lines to files, with rotation. A failing disk is counted, never raised.

    `errors` is the number of lines that could not be written, `last_error` the latest cause;
    `lost` counts lines that found the queue full.
    """

    def __init__(self, *, max_bytes: int, backups: int) -> None:
        self.errors = 0
        self.lost = 0
        self.last_error: str | None = None
        self._max_bytes = max_bytes
        self._backups = backups
        # Both can be entered again by the same thread: a finaliser that logs may run at any point.
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._closed = False

    def write(self, path: Path, text: str) -> None:
        """Hand one line over to the thread; after `close` it is dropped."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="aipg-logs", daemon=True)
                self._thread.start()
        if self._queue.qsize() < QUEUE_SIZE:
            self._queue.put(_Line(path, text))
        else:
            self.lost += 1

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over is written; False if `timeout` seconds passed."""
        with self._lock:
            if self._thread is None or self._closed:
                return True
            done = threading.Event()
            self._queue.put(done)
        self._hurry.set()
        return done.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Write the rest and end the thread; False if a hanging disk did not let it end."""
        with self._lock:
            thread = self._thread
            if thread is not None and not self._closed:
                self._queue.put(None)
            self._closed = True
        self._hurry.set()
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def failed(self, error: BaseException, lines: int = 1) -> None:
        """Count lines that could not be written."""
        self.errors += lines
        self.last_error = str(error)

    def _run(self) -> None:
        files: dict[Path, _File] = {}
        ended = False
        while not ended:
            batch = [self._queue.get()]
            self._hurry.wait(PAUSE)
            self._hurry.clear()
            while not self._queue.empty():
                batch.append(self._queue.get())
            ended = None in batch
            self._take(batch, files)
        for file in files.values():
            try:
                file.close()
            except OSError as error:
                self.failed(error)

    def _take(self, batch: list[_Item], files: dict[Path, _File]) -> None:
        """Write lines in their order, those of one file that follow each other together."""
        for path, items in groupby(batch, lambda item: getattr(item, "path", None)):
            if path is None:
                for item in items:
                    if isinstance(item, threading.Event):
                        item.set()
                continue
            if path not in files:
                files[path] = _File(path, self, self._max_bytes, self._backups)
            texts = (item.text for item in items if isinstance(item, _Line))
            for group in _together(texts, min(TOGETHER, self._max_bytes // 8)):
                record = {"msg": "\n".join(group), "lines": len(group)}
                files[path].emit(logging.makeLogRecord(record))


def _together(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yield texts in groups of `most` characters, or of one text that is longer."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > most:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


class _File(RotatingFileHandler):
    """One log file. Several kernels may append to it; each notices when another rotated it."""

    def __init__(self, path: Path, writer: LogWriter, max_bytes: int, backups: int) -> None:
        super().__init__(
            path,
            maxBytes=max_bytes,
            backupCount=backups,
            encoding="utf-8",
            errors="backslashreplace",
            delay=True,
        )
        self._writer = writer

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802 - the standard library's name
        if self.stream is not None and self._was_moved(self.stream):
            self.stream.close()
            self.stream = None  # as the base class does; it reopens
        return super().shouldRollover(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        error = sys.exc_info()[1]
        self._writer.failed(error or RuntimeError("unknown"), getattr(record, "lines", 1))

    def rotate(self, source: str, dest: str) -> None:
        """Put the file aside, or go on with it where another program holds it (Windows)."""
        try:
            super().rotate(source, dest)
        except PermissionError as error:
            self._writer.failed(error)

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def _was_moved(self, stream: TextIOWrapper) -> bool:
        try:
            ours, there = os.fstat(stream.fileno()), Path(self.baseFilename).stat()
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)
