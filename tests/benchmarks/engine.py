"""The engine at 1 to 16 streams, against llama.cpp's own server and llama-cpp-python's.

All get one thread, eight slots of 1,024 tokens and a model of 134 M parameters in Q8_0 with random
weights. The slots have memory of their own, as those of `llama-server -np 8` have; with memory that
they share ours is measured against a llama-server that shares it, too. Run by itself,
`python -m tests.benchmarks.engine --pairs 2` is a short form.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from . import engine_features, engine_work
from .engine_model import write_model
from .engine_pairs import SHARE, STREAMS, Contest
from .engine_peers import (
    HOW,
    HOW_PYTHON,
    find_llama_server,
    has_python_server,
    llama_server,
    python_server,
)
from .engine_process import Child, ours, serving
from .measure import Row, figure, table

PAIRS = 9
SLOTS = 8
CONTEXT = 1024
"""Tokens of a slot."""

MANY = (8, 16)
"""Streams at which slots with shared memory are measured."""
DIP_STREAMS, DIP_SHARE = (2, 4), 1.2
"""Where small batches take longer than their tokens one by one, ours must be so much faster."""

PYTHON_STREAMS, PYTHON_SHARE = 8, 2.0

MEASURED = 15.0
"""Seconds in which the worker must have measured its steps."""

_STEP = re.compile(r"(\d+): ([\d.]+) ms(?: as ([\d+]+))?")


def rows(pairs: int = PAIRS) -> Iterator[Row]:
    """Measure."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = write_model(folder / "bench.gguf")
        apart = ours(model, slots=SLOTS, context_size=CONTEXT, kv_unified=False)
        child = stack.enter_context(serving(apart, "/health"))
        steps = _wait_for_steps(child)
        yield _steps_row(steps)
        yield from _against_llama_server(child, model, pairs, steps)
        yield from _against_python_server(child, model, pairs)
        yield from engine_features.rows(child.port, pairs)
        child.process.kill()
        yield from _sharing(model, pairs)
        stack.close()  # nothing else may be busy while CPU time is counted
        with tempfile.TemporaryDirectory() as again:
            yield from engine_work.rows(write_model(Path(again) / "bench.gguf"))


def _wait_for_steps(child: Child) -> Mapping[int, tuple[float, str]]:
    """Return the step table; an empty one if the model is too slow to be measured at load."""
    end = time.monotonic() + MEASURED
    while not (steps := step_table(child.said())) and time.monotonic() < end:
        time.sleep(0.2)
    return steps


def step_table(said: str) -> Mapping[int, tuple[float, str]]:
    """Return what the worker measured at load: milliseconds by tokens, and how it divides them."""
    line = next((each for each in said.splitlines() if "time of a step" in each), "")
    return {int(count): (float(time), split) for count, time, split in _STEP.findall(line)}


def _steps_row(steps: Mapping[int, tuple[float, str]]) -> Row:
    told = [
        f"{count}: {time:.1f}" + (f" as {split}" if split else "")
        for count, (time, split) in sorted(steps.items())
    ]
    times = [time for time, _ in steps.values()]
    return figure("step, by tokens (median of all)", times or [0.0], "ms", note=", ".join(told))


def _bar(streams: int, steps: Mapping[int, tuple[float, str]]) -> float:
    dips = streams in DIP_STREAMS and bool(steps.get(streams, (0.0, ""))[1])
    return DIP_SHARE if dips else SHARE


def _against_llama_server(
    child: Child, model: Path, pairs: int, steps: Mapping[int, tuple[float, str]]
) -> Iterator[Row]:
    program = find_llama_server()
    if program is None:
        print(HOW, file=sys.stderr)
        return
    with serving(llama_server(program, model, SLOTS), "/health") as peer:
        contest = Contest("llama-server", child.port, peer.port, pairs)
        for streams in STREAMS:
            for cold in (True, False):
                yield from contest.rates(streams, cold=cold, bar=_bar(streams, steps))


def _sharing(model: Path, pairs: int) -> Iterator[Row]:
    """Compare slots that share their memory."""
    program = find_llama_server()
    if program is None:
        return
    command = [*llama_server(program, model, SLOTS), "--kv-unified"]
    with serving(ours(model, slots=SLOTS), "/health") as child, serving(command, "/health") as peer:
        _wait_for_steps(child)
        contest = Contest("llama-server --kv-unified", child.port, peer.port, pairs)
        for streams in MANY:
            yield from contest.rates(streams, cold=False, bar=SHARE, first=False)


def _against_python_server(child: Child, model: Path, pairs: int) -> Iterator[Row]:
    if not has_python_server():
        print(HOW_PYTHON, file=sys.stderr)
        return
    with serving(python_server(model), "/v1/models") as peer:
        contest = Contest("llama_cpp.server", child.port, peer.port, pairs)
        for cold in (True, False):
            yield from contest.rates(PYTHON_STREAMS, cold=cold, bar=PYTHON_SHARE, first=False)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=PAIRS, help="fewer for a quick look")
    found = []
    for row in rows(parser.parse_args().pairs):
        print(" | ".join(row.cells()), flush=True)
        found.append(row)
    print("\n" + table(found))
    return 1 if any(row.verdict == "missed" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
