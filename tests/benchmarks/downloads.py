"""Downloads: a file of 1 GB from a server beside, ours against `hf_hub_download`.

Ours has its checks on: SHA-256, room on the disk, a process of its own for each download, which is
started within the measured time. The peer runs in this process, with the library imported.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from .measure import Row

SIZE = 1_000_000_000
PAIRS = 9
BAR = 0.85
Action = Callable[[], Awaitable[None]]
REPO, FILE = "bench/model", "model.gguf"
ROOT = Path(__file__).parents[2]


def rows() -> Iterator[Row]:
    """Measure."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        place = Path(folder)
        _model(place / "hub" / REPO / FILE)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.hub_server", str(place / "hub")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            yield asyncio.run(_measure(place, server.stdout.readline().strip()))
        finally:
            server.kill()
            server.communicate()


async def _measure(place: Path, url: str) -> Row:
    from huggingface_hub import hf_hub_download

    from aiplayground import Kernel

    async with Kernel(home=place / "home", settings={"hub": {"endpoint": url}}) as kernel:

        async def ours() -> None:
            asked = {"repo": REPO, "destination": "llm/ours"}
            await kernel.call("downloadModel", asked)

        async def peer() -> None:
            folder = place / "peer"
            await asyncio.to_thread(
                hf_hub_download, REPO, FILE, local_dir=folder, endpoint=url, token=False
            )

        def again() -> None:
            shutil.rmtree(place / "peer", ignore_errors=True)
            shutil.rmtree(kernel.model_paths.root / "llm", ignore_errors=True)

        return await _pairs(ours, peer, again)


async def _pairs(ours: Action, peer: Action, again: Callable[[], None]) -> Row:
    """Time ours between two of the peer's; `again` removes what was downloaded."""

    async def seconds(action: Action) -> float:
        again()
        began = time.perf_counter()
        await action()
        return time.perf_counter() - began

    await seconds(peer), await seconds(ours)
    ratios, control, speeds = [], [], []
    for _ in range(PAIRS):
        a, b, c = await seconds(peer), await seconds(ours), await seconds(peer)
        ratios.append((a + c) / 2 / b)
        control.append(a / c)
        speeds.append(SIZE / b / 1e6)
    quartiles = statistics.quantiles(control, n=4)
    return Row(
        what="1 GB from a local server / `hf_hub_download`",
        value=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        unit="x speed",
        bar=BAR,
        at_least=True,
        control=(quartiles[0], quartiles[2]),
        note=f"{PAIRS} pairs; checked by SHA-256; {statistics.median(speeds):.0f} MB/s",
    )


def _memory() -> str | None:
    """Return a folder in memory, where there is one with room: a disk's moods are not measured."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * SIZE
    return str(memory) if roomy else None


def _model(path: Path) -> None:
    path.parent.mkdir(parents=True)
    block = os.urandom(10_000_000)
    with path.open("wb") as file:
        for number in range(SIZE // len(block)):
            file.write(number.to_bytes(8, "little") + block[8:])
