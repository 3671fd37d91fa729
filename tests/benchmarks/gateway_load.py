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


ATTEMPTS = 3
"""Connections in a row that a server may close before it answers."""


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
        connections = [Connection(self) for _ in range(self.open)]
        for each in connections:
            await each.connect()
        began = time.perf_counter()
        for each in connections:
            each.ask()
        try:
            await asyncio.wait_for(self.done, 120)
        finally:
            for each in connections:
                each.close()
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
    """One connection, on which one request follows another.

    Where the server closes it between two answers, as some do, a new one is made, and the time that
    takes is the next answer's. One that breaks off in an answer is a failure.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._body: list[bytes] = []
        self._began = 0.0
        self._asked = self._answered = False
        self._attempts = 0
        self._connecting: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect; raises `OSError`."""
        await asyncio.get_running_loop().create_connection(lambda: self, *self._job.address)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        if self._asked:
            self._transport.write(self._job.request)

    def ask(self) -> None:
        """Send the next request."""
        self._job.left -= 1
        self._body.clear()
        self._asked, self._answered, self._attempts = True, False, 0
        self._began = time.perf_counter()
        if self._transport.is_closing():
            return  # `connection_lost` is about to come, and connects again
        self._transport.write(self._job.request)

    def close(self) -> None:
        """Close it, and connect no more."""
        self._asked = False
        if self._connecting is not None:
            self._connecting.cancel()
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._answered = True
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
        self._asked = False
        status, found = self._parser.get_status_code(), b"".join(self._body).count(b"data:")
        if status != 200 or found < self._job.expected:
            told = b"".join(self._body)[:300]
            self._job.failed(f"{status} with {found} events, not {self._job.expected}: {told!r}")
            return
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._job.ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._asked:
            return  # between two answers, or after the last
        self._attempts += 1
        if self._answered or self._attempts > ATTEMPTS:
            what = "in an answer" if self._answered else "each time, before an answer"
            self._job.failed(f"the server closed a connection {what}: {exc!r}")
            return
        self._connecting = asyncio.ensure_future(self.connect())
        self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[None]) -> None:
        if not connecting.cancelled() and (error := connecting.exception()) is not None:
            self._job.failed(f"the server takes no connections any more: {error!r}")


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
