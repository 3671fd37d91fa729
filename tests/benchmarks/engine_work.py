"""How much of a step is Python's own work: CPU time of two threads, native calls taken out.

The worker runs as always, but for a clock around each call of llama.cpp in the engine's thread (and
of numpy for the likeliest token, which llama.cpp would look for otherwise) and each write to a
socket in the loop's. What is left of a thread's CPU time, less what the clocks cost, is Python's,
waking each other included. A step waits for the engine's thread alone: the loop's works beside it,
while llama.cpp computes. Other programs change times of CPU less than those on the wall. Saving and
restoring the state of conversations, and writing to sockets, are told apart.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .engine_client import body_of, run_queues
from .engine_process import Child, ours, serving
from .measure import Row, figure

STREAMS = 8
ROUNDS = 5
REQUESTS = 3
SHORT, LONG = 16, 128
"""Tokens of an answer."""

BAR = 200.0

STATE = ("llama_state_seq_get_data", "llama_state_seq_set_data", "llama_state_seq_get_size")


class Clocks(NamedTuple):
    """Microseconds of CPU so far, and steps."""

    engine: float
    loop: float
    native: float
    state: float
    sent: float
    steps: float


class Shares(NamedTuple):
    """Microseconds for each step: Python's by thread, and two apart from it.

    `request`: what each request costs besides, from its first byte to the end of its answer.
    """

    engine: float
    loop: float
    request: float
    state: float
    sent: float


NAMES = (
    f"Python's own work in a step, {STREAMS} streams: the engine's thread",
    "beside it: HTTP and events",
    "for each request",
    "apart: saving and restoring state",
    "apart: writing to sockets",
)


def rows(model: Path, *, rounds: int = ROUNDS) -> Iterator[Row]:
    """Measure mixed rounds of eight streams: what long answers cost more than short ones."""
    found: list[Shares] = []
    with serving(ours(model, __name__), "/health") as child:
        for number in range(rounds + 1):
            short = _round(child, random.Random(number), SHORT)
            found.append(_shares(short, _round(child, random.Random(number), LONG)))
    note = f"{rounds} mixed rounds; CPU time"
    for name, values in zip(NAMES, zip(*found[1:], strict=True), strict=True):  # one warms up
        bar = BAR if name == NAMES[0] else None
        yield figure(name, values, "us", bar, note)


def _round(child: Child, source: random.Random, length: int) -> Clocks:
    before = _ask(child)
    run_queues(child.port, _mixed(source, length))
    return Clocks(*(b - a for a, b in zip(before, _ask(child), strict=True)))


def _shares(short: Clocks, long: Clocks) -> Shares:
    """Tell apart what a step costs and what a request does: both rounds have as many of these."""
    more = Clocks(*(b - a for a, b in zip(short, long, strict=True)))
    engine, loop = (
        (more.engine - more.native) / more.steps,
        (more.loop - more.sent) / more.steps,
    )
    spent = short.engine - short.native + short.loop - short.sent
    request = (spent - (engine + loop) * short.steps) / (STREAMS * REQUESTS)
    state, sent = long.state / long.steps, long.sent / long.steps
    return Shares(engine, loop, request, state, sent)


def _mixed(source: random.Random, length: int) -> list[list[dict[str, Any]]]:
    """Return what eight clients ask: short and long, new and known, greedy and not."""
    shared = "A long beginning that many prompts have. " * 6
    return [
        [
            body_of(
                (shared if source.random() < 0.3 else "")
                + f"{source.random()} "
                + "so " * source.choice((2, 10, 60)),
                length,
                temperature=source.choice((0, 0.8)),
                seed=number,
                stream=source.random() < 0.8,
                stop=source.choice((None, ["never said"])),
            )
            for number in range(REQUESTS)
        ]
        for _ in range(STREAMS)
    ]


def _ask(child: Child) -> Clocks:
    process = child.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return Clocks(*json.loads(process.stdout.readline()))


class Meter:
    """Adds up the CPU time of native calls."""

    def __init__(self) -> None:
        self.native = self.state = self.sent = self.calls = 0
        self.steps: Callable[[], float] = lambda: 0

    def timed(self, function: Any) -> Any:
        """Return the function with a clock around it; what the bindings read of it is kept."""
        clock, is_state = time.thread_time_ns, function.__name__ in STATE

        def call(*arguments: Any) -> Any:
            began = clock()
            try:
                return function(*arguments)
            finally:
                spent = clock() - began
                self.calls += 1
                self.native += spent
                if is_state:
                    self.state += spent

        call.__name__ = function.__name__
        vars(call).update({name: getattr(function, name, None) for name in ("argtypes", "restype")})
        return call

    def sending(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Return the write method of a transport with a clock around it."""

        def call(data: bytes) -> None:
            began = time.thread_time_ns()
            write(data)
            self.sent += time.thread_time_ns() - began

        return call

    def clocks(self) -> Clocks:
        """Return all sums, in microseconds."""
        threads = {thread.name: thread for thread in threading.enumerate()}
        engine, loop = threads["engine"], threading.main_thread()
        return Clocks(
            _cpu(engine), _cpu(loop), self.native / 1e3 + self.calls * self.cost,
            self.state / 1e3, self.sent / 1e3, self.steps(),
        )  # fmt: skip

    @cached_property
    def cost(self) -> float:
        """Microseconds that a clock adds to a call, beyond what it shows."""
        meter, rounds = Meter(), 20_000
        call, began = meter.timed(ctypes.pythonapi.PyErr_CheckSignals), time.thread_time_ns()
        for _ in range(rounds):
            call()
        return (time.thread_time_ns() - began - meter.native) / rounds / 1e3

    def answer(self) -> None:
        """Print the sums for each line that comes."""
        for _ in sys.stdin:
            print(json.dumps(self.clocks()), flush=True)


class Transport:
    """A transport whose writes are timed."""

    def __init__(self, transport: Any, meter: Meter) -> None:
        self._transport = transport
        self.write = meter.sending(transport.write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _cpu(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident)) / 1e3


def _time_sending(meter: Meter) -> None:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    connected = HttpToolsProtocol.connection_made

    def connection_made(protocol: Any, transport: Any) -> None:
        connected(protocol, transport)
        protocol.transport = Transport(transport, meter)

    HttpToolsProtocol.connection_made = connection_made  # type: ignore[assignment,method-assign]  # a clock


def main() -> None:
    """Be the worker, with clocks."""
    from aiplayground.serving.worker import run
    from aiplayground_llamacpp import bindings, worker

    meter = Meter()
    lib = bindings.load_bindings()
    plain = bindings.holding_the_lock
    # Before the modules that take them by name are imported.
    bindings.holding_the_lock = lambda *arguments: meter.timed(plain(*arguments))
    for name in dir(lib):
        function = getattr(lib, name)
        if name.startswith("llama_") and hasattr(function, "argtypes") and function.argtypes:
            setattr(lib, name, meter.timed(function))

    from aiplayground_llamacpp import greedy

    greedy.likeliest = meter.timed(greedy.likeliest)
    _time_sending(meter)

    def make(settings: Any) -> Any:
        engine = worker.make_engine(settings)
        meter.steps = lambda: engine.counters.get("steps", 0)  # type: ignore[attr-defined]  # ours
        return engine

    threading.Thread(target=meter.answer, daemon=True).start()
    run(make)


if __name__ == "__main__":
    main()
