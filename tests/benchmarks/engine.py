"""Tokens per second and time to the first token, by number of streams.

`python -m tests.benchmarks.engine` compares llamacpp-backend with itself answering one request at
a time (`slots` 1), and with `python -m llama_cpp.server` where its extra is installed. All get
one thread and a model of 134 M parameters in Q8_0; the order alternates.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from .engine_model import write_model
from .measure import Row, table

STREAMS = (1, 2, 4, 8, 16)
TOKENS = 48
PAIRS = 3
READY = 60.0


class Run(NamedTuple):
    """What one round gave: tokens a second, and the median seconds to the first token."""

    rate: float
    first: float


@dataclass
class Server:
    """A server under test. `restart` is for the figures of the first requests."""

    name: str
    url: str
    prompts: int = 0

    def run(self, streams: int) -> Run:
        """Have so many streams answered at once, with prompts that were never seen before."""
        self.prompts += streams
        numbers = range(self.prompts - streams, self.prompts)
        return asyncio.run(_streams(self.url, [f"{n}: how does that work?" for n in numbers]))


async def _streams(url: str, prompts: Sequence[str]) -> Run:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits, trust_env=False) as client:
        began = time.perf_counter()
        firsts = await asyncio.gather(*(_stream(client, url, prompt) for prompt in prompts))
        took = time.perf_counter() - began
    return Run(len(prompts) * TOKENS / took, statistics.median(firsts))


async def _stream(client: httpx.AsyncClient, url: str, prompt: str) -> float:
    # A bias bans the end of text, which not every server has a switch for.
    body = {
        "model": "bench", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0,
        "stream": True, "logit_bias": {"257": -100},
    }  # fmt: skip
    began, first = time.perf_counter(), 0.0
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not first and line.startswith("data: {"):
                first = time.perf_counter() - began
    return first


@contextmanager
def _process(arguments: Sequence[str], port: int, ready: str) -> Iterator[str]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url + ready, process)
            yield url
        finally:
            process.kill()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                time.sleep(1.0)  # our engine measures batches while it is idle
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the server did not come up")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _ours(stack: ExitStack, model: Path, name: str, **settings: object) -> Server:
    port = _free_port()
    arguments = [
        "aiplayground_llamacpp.worker", "--port", str(port), "--model", str(model), "--name",
        "bench", "--settings", json.dumps({"threads": 1, "context_size": 8192, **settings}),
    ]  # fmt: skip
    return Server(name, stack.enter_context(_process(arguments, port, "/health")))


def _peer(stack: ExitStack, model: Path) -> Server:
    port = _free_port()
    arguments = [
        "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port), "--model", str(model),
        "--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "8192",
        "--interrupt_requests", "False",
    ]  # fmt: skip
    return Server("llama_cpp.server", stack.enter_context(_process(arguments, port, "/v1/models")))


def _compare(ours: Server, other: Server, streams: int, bar: float | None) -> list[Row]:
    rates, firsts, said = [], [], ""
    for pair in range(PAIRS):
        order: list[Server] = [ours, other] if pair % 2 else [other, ours]
        runs = {server.name: server.run(streams) for server in order}
        mine, theirs = runs[ours.name], runs[other.name]
        rates.append(theirs.rate / mine.rate)
        firsts.append(mine.first / theirs.first)
        said = (
            f"last: {mine.rate:.0f} and {theirs.rate:.0f} tokens/s, "
            f"{mine.first * 1e3:.0f} and {theirs.first * 1e3:.0f} ms"
        )
    what = f"{ours.name} against {other.name}, {streams} streams"
    return [_row(f"{what}: time for a token", rates, bar, said), _row(f"{what}: first", firsts)]


def _row(what: str, values: Sequence[float], bar: float | None = None, note: str = "") -> Row:
    return Row(
        what=what, value=statistics.median(values), low=min(values), high=max(values),
        unit="times", bar=bar, note=note,
    )  # fmt: skip


def rows(report: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Measure; `report` is told each row when it is known."""
    found: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = write_model(folder / "bench.gguf")
        ours = _ours(stack, model, "batched", slots=16)
        others: list[tuple[Server, int | None]] = [(_ours(stack, model, "serial", slots=1), None)]
        if all(map(importlib.util.find_spec, ("fastapi", "sse_starlette", "starlette_context"))):
            others.append((_peer(stack, model), 8))
        for other, strict in others:
            for streams in STREAMS:
                bar = 0.5 if streams == strict else None
                for row in _compare(ours, other, streams, bar):
                    report(row)
                    found.append(row)
    return found


def main() -> int:
    """Measure and print."""
    found = rows(lambda row: print(" | ".join(row.cells()), flush=True))
    print("\n" + table(found))
    return 1 if any(row.verdict == "missed" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
