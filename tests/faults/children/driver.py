"""A small kernel: launches children over and over until it is killed.

Arguments: folder of the ledger, and "churn", "steady" or "forking". Prints a line per launch.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from aiplayground._processes.ledger import Ledger
from aiplayground._processes.process import Process

HERE = Path(__file__).parent
WORKER = [sys.executable, str(HERE / "worker.py")]
FOREIGN = [sys.executable, "-I", "-S", str(HERE / "foreign.py")]


async def main(folder: Path, mode: str) -> None:
    """Keep a tree of each kind running; in "churn" mode, end it and start anew at once."""
    ledger = Ledger(folder)
    env = dict(os.environ)
    while True:
        up = asyncio.Semaphore(0)

        def on_line(line: str, up: asyncio.Semaphore = up) -> None:
            if line == "up":
                up.release()

        children = [
            await Process.launch(
                argv, env=env, guarded=argv is FOREIGN, on_line=on_line, ledger=ledger
            )
            for argv in (WORKER, FOREIGN)
        ]
        print(*(child.pid for child in children), flush=True)
        if mode != "churn":
            for _ in children:
                await up.acquire()
            print("steady", flush=True)
            if mode == "forking":
                fork()
            await asyncio.sleep(3600)
        await asyncio.sleep(0.05)
        await asyncio.gather(*(child.end(0) for child in children))


def fork() -> None:
    """Leave a bare copy of this process, as `multiprocessing` does."""
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
    print("fork", pid, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
