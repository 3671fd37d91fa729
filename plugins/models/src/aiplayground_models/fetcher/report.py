"""What a fetcher tells its owner, as lines of JSON on its standard output."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, BinaryIO

EVERY = 0.1
"""Seconds from one word on the progress to the next."""


class Reporter:
    """Tells how far the whole download is. Any thread may use it."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._out = out or sys.stdout.buffer
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._told = 0.0

    def tell(self, event: str, **fields: Any) -> None:
        """Write one line now."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def status(self, status: str, message: str = "") -> None:
        """Say what is being done."""
        self.tell("status", status=status, message=message)

    def progress(self, path: str, done: int) -> None:
        """Note how many bytes of a file are here, and tell the sum now and then."""
        now = time.monotonic()
        with self._lock:
            self._done[path] = done
            if now - self._told < EVERY:
                return
            self._told = now
            total = sum(self._done.values())
        self.tell("progress", done=total, file=path)
