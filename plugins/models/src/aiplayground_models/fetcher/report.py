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
        """Note how many bytes of a file are here; they are told with the next tick."""
        self._done[path] = done

    def tick(self) -> None:
        """Tell how many bytes are here from now on, whenever that has changed."""
        threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def _tick(self) -> None:
        told: dict[str, int] = {}
        while True:
            now = dict(self._done)
            if now != told:
                told = now
                self.tell("progress", done=sum(now.values()))
            time.sleep(EVERY)
