"""A client that costs little: on a machine of two cores its work would show in the figures."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

DEADLINE = 300.0
"""Seconds in which an answer must be complete."""

COMPLETION = "/v1/completions"
EVENT = b"data: {"
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Run(NamedTuple):
    """What one round gave: tokens per second, and the median seconds to the first token."""

    rate: float
    first: float


class Timed(NamedTuple):
    """One answer: seconds to its first event, and all that was sent."""

    first: float
    content: bytes

    @property
    def reason(self) -> bytes:
        """Why it ended, in the server's word."""
        found = re.findall(rb'"finish_reason": ?"(\w+)"', self.content)
        return bytes(found[-1]) if found else b""


def body_of(prompt: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """Return a greedy request for so many tokens, whichever server is asked.

    A bias bans the end of text, which not every server has a switch for.
    """
    return {
        "model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "stream": True, "logit_bias": {"257": -100}, **fields,
    }  # fmt: skip


def run_all(port: int, rounds: Iterable[Sequence[Mapping[str, Any]]], tokens: int) -> Run:
    """Send the requests of a round at once, and one round after the other.

    Each is to give so many tokens.
    """

    async def work() -> Run:
        answers: list[Timed] = []
        began = time.perf_counter()
        for bodies in rounds:
            answers += await asyncio.gather(*(send(port, body) for body in bodies))
        took = time.perf_counter() - began
        short = [each for each in answers if each.reason != b"length"]
        if short:
            raise RuntimeError(f"an answer ended early: {short[0].content[-500:]!r}")
        first = statistics.median(each.first for each in answers)
        return Run(len(answers) * tokens / took, first)

    return asyncio.run(work())


def run_queues(port: int, queues: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Send the requests of each queue one after the other, all queues at the same time."""

    async def queue(bodies: Sequence[Mapping[str, Any]]) -> None:
        async with client(port) as one:
            for body in bodies:
                await one.send(body)

    async def work() -> None:
        await asyncio.gather(*map(queue, queues))

    asyncio.run(work())


class Client:
    """One connection, kept open between its requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, body: Mapping[str, Any], path: str = COMPLETION) -> Timed:
        """Send a request and read its answer to the end."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        async with asyncio.timeout(DEADLINE):
            began = time.perf_counter()
            self._writer.write(head.encode() + data)
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            timed = await self._read(head, began)
        if " 200 " not in head.partition("\r\n")[0]:
            raise RuntimeError(f"{head}{timed.content[-500:]!r}")
        return timed

    async def _read(self, head: str, began: float) -> Timed:
        if length := re.search("\r\ncontent-length: ([0-9]+)", head):
            content = await self._reader.readexactly(int(length[1]))
            return Timed(time.perf_counter() - began, content)
        content, first = b"", 0.0
        while not content.endswith(LAST_CHUNK):
            data = await self._reader.read(2**16)
            if not data:
                raise RuntimeError(f"the answer was cut off: {content[-500:]!r}")
            content += data
            if not first and EVENT in content:
                first = time.perf_counter() - began
        return Timed(first, content)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    """Connect to a server on this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def send(port: int, body: Mapping[str, Any]) -> Timed:
    """Send one request on a connection of its own."""
    async with client(port) as one:
        return await one.send(body)
