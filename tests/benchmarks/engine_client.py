"""A client that costs little: on a machine of two cores its work would show in the figures."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

DEADLINE = 300.0
"""Seconds in which an answer must be complete."""

COMPLETION = "/v1/completions"
EVENT = b"data: {"


class Run(NamedTuple):
    """What one round gave: tokens per second, and the median seconds to the first token."""

    rate: float
    first: float


class Timed(NamedTuple):
    """One answer: seconds to its first event, how many events it had, and all that was sent."""

    first: float
    events: int
    content: bytes


def body_of(prompt: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """Return a greedy request for so many tokens, whichever server is asked.

    A bias bans the end of text, which not every server has a switch for.
    """
    return {
        "model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "stream": True, "logit_bias": {"257": -100}, **fields,
    }  # fmt: skip


def run_all(port: int, bodies: Sequence[Mapping[str, Any]], tokens: int) -> Run:
    """Send all requests at once; each is to give so many tokens."""

    async def work() -> Run:
        began = time.perf_counter()
        answers = await asyncio.gather(*(send(port, body) for body in bodies))
        took = time.perf_counter() - began
        return Run(len(bodies) * tokens / took, statistics.median(each.first for each in answers))

    return asyncio.run(work())


def run_queues(port: int, queues: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Send the requests of each queue one after the other, all queues at the same time."""

    async def client(bodies: Sequence[Mapping[str, Any]]) -> None:
        for body in bodies:
            await send(port, body)

    async def work() -> None:
        await asyncio.gather(*map(client, queues))

    asyncio.run(work())


async def send(port: int, body: Mapping[str, Any], path: str = COMPLETION) -> Timed:
    """Send one request and read its answer to the end."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            data = json.dumps(body).encode()
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + data)
            return await _read(reader, began)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, began: float) -> Timed:
    status = await reader.readline()
    content, first = b"", 0.0
    while data := await reader.read(2**16):
        content += data
        if not first and EVENT in content:
            first = time.perf_counter() - began
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r}: {content[-500:]!r}")
    return Timed(first or time.perf_counter() - began, content.count(EVENT), content)
