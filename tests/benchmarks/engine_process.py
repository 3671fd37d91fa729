"""Servers under test: processes with one thread for computing, each on a port of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

READY = 60.0
"""Seconds in which a server must answer."""

SETTLE = 1.0
"""Seconds that a server is left alone then: ours times batches while it is idle."""


class Child(NamedTuple):
    """A running server: its port, its process, and the file that it logs to."""

    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def said(self) -> str:
        """Return all that it logged."""
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")


@contextmanager
def serving(arguments: Sequence[str], ready: str) -> Iterator[Child]:
    """Run a server until the block ends; `{port}` stands for its port, `ready` is a path."""
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [each.replace("{port}", str(port)) for each in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        child = Child(port, process, log)
        try:
            _wait(f"http://127.0.0.1:{port}{ready}", child)
            yield child
        finally:
            process.kill()
            process.wait(30)
            process.communicate()


def ours(
    model: Path, module: str = "aiplayground_llamacpp.worker", **settings: object
) -> list[str]:
    """Return the command line of our worker, or of a module that does more than it."""
    return [
        sys.executable, "-m", module, "--port", "{port}", "--model", str(model), "--name", "bench",
        "--settings", json.dumps({"threads": 1, "context_size": 8192, **settings}),
    ]  # fmt: skip


def _wait(url: str, child: Child) -> None:
    end = time.monotonic() + READY
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and child.process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                time.sleep(SETTLE)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not come up; it said:\n{child.said()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
