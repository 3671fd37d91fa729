"""Listing models: 2,000 tiny GGUF files in 50 folders, from the cache and without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aiplayground import Kernel
from aiplayground.models import ModelIndex
from tests.gguf_files import Gguf

from .measure import Row, figure, seconds

MODELS, FOLDERS, SAMPLES = 2000, 50, 9

LATER = """
import sys, time
from pathlib import Path
from aiplayground.models import ModelIndex
began = time.perf_counter()
found = ModelIndex(Path(sys.argv[1])).scan([Path(sys.argv[2])])
took = time.perf_counter() - began
assert len(found.models) == int(sys.argv[3]), found.problems
print(took)
"""


def rows() -> Iterator[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        home, cache = Path(folder), Path(folder) / "index.json"
        root = home / "models"
        _write(root / "llm")
        first = [seconds(lambda: ModelIndex().scan([root])) * 1000 for _ in range(3)]
        yield figure(f"list {MODELS} models, every header read", first, "ms")
        index = ModelIndex(cache)
        index.scan([root])
        argv = [sys.executable, "-c", LATER, str(cache), str(root), str(MODELS)]
        later = [_asked(argv) * 1000 for _ in range(SAMPLES)]
        yield figure("list them again, in another process", later, "ms", 100)
        again = [seconds(lambda: index.scan([root])) * 1000 for _ in range(SAMPLES)]
        yield figure("list them again, in the same process", again, "ms", 100)
        called = asyncio.run(_called(home))
        yield figure("`loadModels` again, the backends asked", called, "ms")


def _write(root: Path) -> None:
    data = Gguf().to_bytes()
    for number in range(MODELS):
        path = root / f"owner-{number % FOLDERS}" / f"model-{number}-Q4_K_M.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _asked(argv: list[str]) -> float:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return float(done.stdout)


async def _called(home: Path) -> list[float]:
    async with Kernel(home=home) as kernel:
        await kernel.call("loadModels")
        samples = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            await kernel.call("loadModels")
            samples.append((time.perf_counter() - began) * 1000)
        return samples
