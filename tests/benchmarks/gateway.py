"""What the gateway costs: against the worker called directly, and to come up."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

from .gateway_children import CHUNKS
from .measure import Row, figure, ratio, seconds

STREAMS, UNARY, FIRSTS = 128, 200, 40
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def rows() -> Iterator[Row]:
    """Measure."""
    yield from _coming_up()
    with (
        tempfile.TemporaryDirectory() as home,
        _servers(home) as (direct, through),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield from _against(runner, direct, through)


def _against(runner: asyncio.Runner, direct: str, through: str) -> Iterator[Row]:
    def run(work: Callable[..., Any], url: str, *arguments: Any) -> Any:
        return runner.run(work(url, *arguments))

    yield ratio(
        f"{CHUNKS}-chunk streams at 64 connections, over direct",
        partial(run, _load, through, STREAMS, 64, True),
        partial(run, _load, direct, STREAMS, 64, True),
        1 / 0.95,
    )
    yield ratio(
        "chats that are not streamed, at 16 connections, over direct",
        partial(run, _load, through, UNARY, 16, False),
        partial(run, _load, direct, UNARY, 16, False),
        4,
    )
    added = []
    for _ in range(9):
        first, again = run(_first, direct), run(_first, through)
        added.append((again - first) * 1000)
    yield figure("first byte through the gateway, over direct", added, "ms", 0.9)


async def _load(url: str, total: int, connections: int, stream: bool) -> None:
    numbers = iter(range(total))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def work() -> None:
            for _ in numbers:
                async with client.post(url, json={**BODY, "stream": stream}) as answer:
                    data = await answer.read()
                    assert not stream or data.count(b"data:") == CHUNKS + 1

        await asyncio.gather(*(work() for _ in range(connections)))


async def _first(url: str) -> float:
    """Return the median of the seconds to the first byte, one request after another."""
    found = []
    async with aiohttp.ClientSession() as client:
        for _ in range(FIRSTS):
            began = time.perf_counter()
            async with client.post(url, json={**BODY, "stream": True}) as answer:
                await answer.content.readany()
                found.append(time.perf_counter() - began)
                await answer.read()
    return statistics.median(found)


def _coming_up() -> Iterator[Row]:
    took, resident = [], []
    for _ in range(6):
        with tempfile.TemporaryDirectory() as home:
            a, b = _serve_once(home)
        took.append(a)
        resident.append(b / 1e6)
    yield figure("from `aipg serve` to 200 on /healthy", took[1:], "s", 1.0)
    yield figure("idle kernel with gateway, resident", resident[1:], "MB", 90)


def _serve_once(home: str) -> tuple[float, int]:
    port = free_port()
    aipg = str(Path(sys.executable).with_name("aipg"))
    command = [aipg, "--home", home, "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        took = seconds(partial(_until_up, f"http://127.0.0.1:{port}/healthy"))
        time.sleep(1)
        resident: int = psutil.Process(process.pid).memory_info().rss
        process.terminate()
    return took, resident


def _until_up(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status < 500
                return
        except OSError as error:
            if getattr(error, "code", None) is not None:
                return  # it answers, if with a refusal: the worker knows no such path
            time.sleep(0.005)
    raise TimeoutError(url)


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _servers(home: str) -> Iterator[tuple[str, str]]:
    """Run worker and gateway; yields where each answers chats."""
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    module = [sys.executable, "-m", "tests.benchmarks.gateway_children"]
    commands = [
        [*module, "worker", str(ports[0])],
        [*module, "gateway", str(ports[1]), urls[0], home],
    ]
    children = [subprocess.Popen(each, env=os.environ) for each in commands]
    try:
        for url in urls:
            _until_up(f"{url}/healthy")
        yield f"{urls[0]}/v1/chat/completions", f"{urls[1]}/v1/chat/completions"
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(30)
