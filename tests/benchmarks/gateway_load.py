"""The load on a gateway: a process of its own that costs as little as Python lets it.

python -m tests.benchmarks.gateway_load

It reads jobs from its standard input, one line of JSON each, and answers each with one line. No
HTTP library: one of those costs more than what is measured, and would be the bottleneck.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

STAMP = b'"@'
"""What stands before the time (in microseconds) at which a paced worker sent a chunk."""


class Job:
    """Requests to one address: `total` of them over `connections`, each with the same body."""

    def __init__(self, asked: dict[str, Any]) -> None:
        url = urlsplit(asked["url"])
        body = json.dumps(asked["body"]).encode()
        self.address = (str(url.hostname), int(url.port or 80))
        self.request = (
            f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
            f"accept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.left: int = asked["total"]
        self.open: int = min(asked["connections"], self.left)
        self.expected: int = asked["events"]
        self.firsts: list[float] = []
        self.delays: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    async def run(self) -> dict[str, Any]:
        """Send all of them; returns what took how long, in seconds."""
        loop = asyncio.get_running_loop()
        pairs = [
            await loop.create_connection(lambda: Connection(self), *self.address)
            for _ in range(self.open)
        ]
        began = time.perf_counter()
        for _, connection in pairs:
            connection.ask()
        try:
            await asyncio.wait_for(self.done, 120)
        finally:
            for transport, _ in pairs:
                transport.close()
        took = time.perf_counter() - began
        return {"seconds": took, "firsts": self.firsts, "delays": self.delays}

    def ended(self, connection: Connection) -> None:
        """Go on with the next one."""
        if self.left > 0:
            connection.ask()
            return
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def failed(self, why: str) -> None:
        """Give up: a figure with failures in it would be worth nothing."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


class Connection(asyncio.Protocol):
    """One connection, on which one request follows another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._body: list[bytes] = []
        self._began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def ask(self) -> None:
        """Send the next request."""
        self._job.left -= 1
        self._body.clear()
        self._began = time.perf_counter()
        self._transport.write(self._job.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._job.failed(f"no HTTP: {error!r}")

    def on_body(self, data: bytes) -> None:
        if not self._body:
            self._job.firsts.append(time.perf_counter() - self._began)
        self._body.append(data)
        if STAMP in data:
            self._note_delays(data)

    def _note_delays(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        for piece in data.split(STAMP)[1:]:
            self._job.delays.append((now - int(piece[: piece.index(b" ")])) / 1e6)

    def on_message_complete(self) -> None:
        status, found = self._parser.get_status_code(), b"".join(self._body).count(b"data:")
        if status != 200 or found < self._job.expected:
            told = b"".join(self._body)[:300]
            self._job.failed(f"{status} with {found} events, not {self._job.expected}: {told!r}")
        else:
            self._job.ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._job.failed("the server closed a connection")


class Load:
    """The process, as the benchmark sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self, url: str, body: dict[str, Any], **job: int) -> dict[str, Any]:
        """Run a job: `total` requests over `connections`, `events` in each answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"url": url, "body": body, **job}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line or b'{"error": "the load generator ended"}')
        if "error" in found:
            raise RuntimeError(found["error"])
        return found


@contextmanager
def load() -> Iterator[Load]:
    """Run the process."""
    command = [sys.executable, "-m", "tests.benchmarks.gateway_load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Load(process)
        finally:
            process.terminate()


def main() -> None:
    """Do jobs until the input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            try:
                found = runner.run(_job(json.loads(line)))
            except (OSError, RuntimeError, TimeoutError) as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


async def _job(asked: dict[str, Any]) -> dict[str, Any]:
    return await Job(asked).run()


if __name__ == "__main__":
    main()
