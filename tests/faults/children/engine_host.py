"""A program with a kernel and the real engine in it: asks, stops and begins again until killed.

Argument: the home, which has the model `tiny`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

from tests.fakes import QUICK, question

import aiplayground_llamacpp.plugin as llamacpp
from aiplayground import Kernel

SERVICE = "llamacpp-backend"


async def answer(kernel: Kernel) -> None:
    """Read an answer to its end."""
    asked = question("tiny", max_tokens=200, ignore_eos=True)
    async with contextlib.aclosing(kernel.chat(asked)) as chunks:
        async for _ in chunks:
            print("chunk", flush=True)


async def main(home: Path) -> None:
    """Start, answer, stop and begin again."""
    luck = random.Random(0)
    plugins = {SERVICE: llamacpp}
    async with Kernel(home=home, plugins=plugins, discover=False, settings=QUICK) as kernel:
        print("open", flush=True)
        while True:
            answering = asyncio.ensure_future(answer(kernel))
            await asyncio.wait({answering}, timeout=luck.random() * 2)
            await kernel.stop(SERVICE)
            await asyncio.wait({answering})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
