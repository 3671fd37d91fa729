"""A server that nobody's kernel started: what attached services talk to."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from .fakes import PATIENCE, SERVER


class Server:
    """`faults/children/server.py` as a program of its own; it can go away and come back."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        argv = [sys.executable, "-I", "-S", SERVER, str(self.port), *self.options]
        self.process = subprocess.Popen(argv)
        deadline = time.monotonic() + PATIENCE
        while not answers(self.port):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def attach(url: str, name: str = "far", **settings: Any) -> dict[str, Any]:
    """Return settings that make a service of an address."""
    return {"attach": {name: {"url": url, **settings}}}
