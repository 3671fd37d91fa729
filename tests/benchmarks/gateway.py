"""What the gateway costs: against the worker called directly, against LiteLLM, and to come up.

The worker, the gateway and the load are a process each. `AIPG_BENCH_LITELLM` names an executable of
LiteLLM's proxy (`pip install "litellm[proxy]"` in an environment of its own) to measure that, too.
"""

from __future__ import annotations

import json
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

import psutil

from .gateway_children import CHUNKS, EVENTS
from .gateway_load import Load, load
from .measure import Row, absent, figure, ratio, seconds

STREAMS, UNARY, FIRSTS = 256, 2000, 40
PAUSE = 0.005
"""Seconds between the chunks of a paced answer."""

CHAT = "/v1/chat/completions"
LITELLM = os.environ.get("AIPG_BENCH_LITELLM")


def rows() -> Iterator[Row]:
    """Measure."""
    yield from _coming_up()
    with load() as process:
        with _servers("worker") as sides:
            yield from _against(Sides(process, "worker", *sides), "")
            yield _paced(Sides(process, "worker", *sides))
        with _servers("bare") as sides:
            yield from _against(Sides(process, "bare", *sides), ", bare worker")
            yield from _litellm(process, *sides)


class Sides:
    """The same work on a worker called directly, and through what stands before it."""

    def __init__(self, process: Load, kind: str, direct: str, through: str) -> None:
        self._load = process
        self._events = EVENTS[kind]
        self.direct = direct
        self.through = through

    def streams(self, url: str, total: int = STREAMS) -> float:
        """Run streams of 128 chunks at 64 connections; returns seconds."""
        took: float = self._run(url, total, 64, stream=True)["seconds"]
        return took

    def unary(self, url: str) -> float:
        """Run chats that are not streamed at 16 connections; returns seconds."""
        took: float = self._run(url, UNARY, 16, stream=False)["seconds"]
        return took

    def first(self, url: str) -> float:
        """Return the median of the milliseconds to the first byte, one stream after another."""
        found: list[float] = self._run(url, FIRSTS, 1, stream=True)["firsts"]
        return 1000 * statistics.median(found)

    def late(self, url: str) -> float:
        """Return the 99th percentile of the milliseconds that chunks of paced streams take."""
        found: list[float] = self._run(url, 64, 64, stream=True, pause=PAUSE)["delays"]
        return 1000 * statistics.quantiles(found, n=100)[98]

    def _run(
        self, url: str, total: int, connections: int, *, stream: bool, pause: float = 0
    ) -> dict[str, Any]:
        asked = f"{CHUNKS if stream else 1} {pause}"
        body = {"model": "m", "messages": [{"role": "user", "content": asked}], "stream": stream}
        events = self._events if stream else 0
        return self._load(url + CHAT, body, total=total, connections=connections, events=events)


def _against(sides: Sides, which: str) -> Iterator[Row]:
    yield ratio(
        f"{CHUNKS}-chunk streams at 64 connections, over direct{which}",
        partial(sides.streams, sides.through),
        partial(sides.streams, sides.direct),
        1 / 0.95,
    )
    yield ratio(
        f"chats that are not streamed, at 16 connections, over direct{which}",
        partial(sides.unary, sides.through),
        partial(sides.unary, sides.direct),
        4,
    )
    what = f"first byte through the gateway, over direct{which}"
    yield _added(what, sides.first, sides, 0.9)


def _paced(sides: Sides) -> Row:
    what = f"a chunk each {PAUSE * 1000:g} ms in 64 streams: 99th percentile of delays, over direct"
    return _added(what, sides.late, sides, 3)


def _added(what: str, look: Callable[[str], float], sides: Sides, bar: float) -> Row:
    """Return what is added to a figure in milliseconds: in alternated pairs, with a control."""
    look(sides.through)
    added, control = [], []
    for _ in range(9):
        before, between, after = look(sides.direct), look(sides.through), look(sides.direct)
        added.append(between - (before + after) / 2)
        control.append(after - before)
    low, _, high = statistics.quantiles(control, n=4)
    note = f"{len(added)} pairs; direct against itself: {low:+.2g} to {high:+.2g} ms"
    return figure(what, added, "ms", bar, note)


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
    deadline = time.monotonic() + 240  # LiteLLM's proxy takes its time, on a busy machine minutes
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
def _servers(kind: str) -> Iterator[tuple[str, str]]:
    """Run worker and gateway; yields where each answers."""
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    ports = [url.rpartition(":")[2] for url in urls]
    module = [sys.executable, "-m", "tests.benchmarks.gateway_children"]
    with tempfile.TemporaryDirectory() as home:
        worker = [*module, "worker", "--port", ports[0]]
        bare = [*module, "bare", ports[0]]
        gateway = [*module, "gateway", ports[1], urls[0], home]
        with (
            _child(worker if kind == "worker" else bare, f"{urls[0]}/healthy"),
            _child(gateway, f"{urls[1]}/healthy"),
        ):
            yield urls[0], urls[1]


@contextmanager
def _child(command: list[str], ready: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=quiet, stderr=quiet
    ) as child:
        try:
            _until_up(ready)
            yield child
        finally:
            child.terminate()


# LiteLLM ----------------------------------------------------------------------------------------


def _litellm(process: Load, direct: str, ours: str) -> Iterator[Row]:
    whats = (
        "rate of streams, over LiteLLM's",
        "added time to the first byte, over LiteLLM's",
        "resident with the gateway, over LiteLLM's",
    )
    if LITELLM is None:
        for what in whats:
            yield absent(what, "AIPG_BENCH_LITELLM names no proxy")
        return
    with tempfile.TemporaryDirectory() as folder, _proxy(LITELLM, Path(folder), direct) as found:
        url, pid = found
        us, them = Sides(process, "bare", direct, ours), Sides(process, "bare", direct, url)
        them.streams(url, 64)
        rates, added = [], []
        for _ in range(5):
            rates.append(them.streams(url, 64) / 64 / (us.streams(ours) / STREAMS))
            before = us.first(direct)
            added.append((us.first(ours) - before) / (them.first(url) - before))
        resident = psutil.Process(pid).memory_info().rss
    yield figure(whats[0], rates, "x", 25, at_least=True)
    yield figure(whats[1], added, "x", 1 / 20)
    with tempfile.TemporaryDirectory() as home:
        _, own = _serve_once(home)
    note = f"{own / 1e6:.0f} MB and {resident / 1e6:.0f} MB"
    yield figure(whats[2], [own / resident], "x", 1 / 4, note)


@contextmanager
def _proxy(program: str, folder: Path, worker: str) -> Iterator[tuple[str, int]]:
    """Run LiteLLM's proxy before a worker; yields its URL and its process."""
    config, port = folder / "config.yaml", free_port()
    model = {"model": "openai/m", "api_base": f"{worker}/v1", "api_key": "none"}
    config.write_text(
        json.dumps({"model_list": [{"model_name": "m", "litellm_params": model}]})  # JSON is YAML
    )
    url = f"http://127.0.0.1:{port}"
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no look at the network
        "LITELLM_LOG": "ERROR",
        # No key, as ours asks for none on loopback; it refuses to start without this word.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with _child(command, f"{url}/health/liveliness", **environ) as child:
        yield url, child.pid
