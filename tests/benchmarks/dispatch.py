"""What the kernel costs between a caller and a plugin: routing, events, readiness."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator

from aiplayground import BackendSpec, Kernel, LaunchSpec, hookimpl
from aiplayground._bus import Bus, Overflow
from aiplayground._loader import load_plugins
from aiplayground._router import Router
from aiplayground.events import ServiceSetUpProgress, Snapshot

from .measure import Row, figure

CALLS = 20_000
ROUNDS = 9

WORKER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("answers at", time.monotonic(), flush=True)
server.serve_forever()
"""


class Backend:
    """A backend whose hooks do nothing, and one that launches a small worker."""

    def __init__(self) -> None:
        self.answers_at: list[float] = []

    @hookimpl
    def backend(self) -> BackendSpec:
        """Say who this is."""
        return BackendSpec(name="bench", title="Benchmark")

    @hookimpl
    async def load_model(self, ctx: object, model: str) -> None:
        """Do nothing."""

    @hookimpl
    async def start(self, ctx: object) -> None:
        """Launch the worker."""
        spec = LaunchSpec(argv=[sys.executable, "-S", "-c", WORKER, "{port}"])
        await ctx.spawn(spec)  # type: ignore[attr-defined]  # the kernel's context


def rows() -> Iterator[Row]:
    """Measure."""
    yield asyncio.run(_router())
    yield asyncio.run(_bus())
    yield asyncio.run(_readiness())


async def _router() -> Row:
    plugin = Backend()
    router = Router(load_plugins([("bench", plugin)], discover=False), lambda *_: None)
    route = router.find("bench", "load_model")
    assert route is not None
    extra = []
    for _ in range(ROUNDS):
        direct = await _per_call(plugin.load_model)
        extra.append((await _per_call(route.call) - direct) * 1e6)
    return figure("hook call through the router, over a direct one", extra, "us", 1.0)


async def _per_call(function: object) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await function(None, "m")  # type: ignore[operator]  # either of two signatures
    return (time.perf_counter() - began) / CALLS


async def _bus() -> Row:
    bus = Bus(Snapshot)
    for _ in range(10):
        bus.subscribe(overflow=Overflow.DROP_OLDEST)
    samples = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for number in range(CALLS // 10):
            bus.publish(ServiceSetUpProgress(service="s", stage="x", progress=number))
        samples.append((time.perf_counter() - began) / (CALLS // 10) * 1e6)
    return figure("event publish, 10 subscribers", samples, "us", 20)


async def _readiness() -> Row:
    lags = []
    with tempfile.TemporaryDirectory() as home:
        async with Kernel(home=home, plugins={"bench": Backend()}, discover=False) as kernel:
            for _ in range(ROUNDS + 1):
                await kernel.start("bench")
                seen = time.monotonic()
                answers = [
                    line for line in kernel.log("bench").tail(50) if "answers at" in line.text
                ]
                lags.append((seen - float(answers[-1].text.split()[-1])) * 1000)
                await kernel.stop("bench")
    # The first one also imports the HTTP client, while the worker starts.
    return figure("readiness seen after the worker answers", lags[1:], "ms", 50)
