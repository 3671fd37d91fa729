"""A program with a kernel in it: starts and stops a service with real workers until it is killed.

Arguments: the home, the file in which the workers note their process ids, and the options of
`server.py` for them.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from tests.fakes import Served, kernel


async def main(home: Path, *options: str) -> None:
    """Start, ask, stop and begin again, at any pace."""
    luck = random.Random(str(home))
    settings = {"timeouts": {"stop_grace": 0.1}}
    async with kernel(home, Served(*options), settings=settings) as k:
        print("open", flush=True)
        while True:
            starting = asyncio.ensure_future(k.start("served"))
            if luck.random() < 0.5:
                await asyncio.wait({starting})
                print("running", flush=True)
            await asyncio.sleep(luck.random() / 4)
            await k.stop("served")
            await asyncio.wait({starting})
            if starting.exception() is not None:
                print("pre-empted", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
