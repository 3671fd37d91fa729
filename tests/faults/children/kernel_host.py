"""A program with a kernel in it that starts one service and asks it things until it is killed.

Arguments: the home, the manifest (or `-`), the service, the model, settings as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.fakes import ask

from aiplayground.kernel import Kernel


async def main(home: str, manifest: str, service: str, model: str, settings: str) -> None:
    """Start the service, say so, and ask."""
    plugins = {} if manifest == "-" else {service: Path(manifest)}
    async with Kernel(
        home=home, plugins=plugins, discover=False, settings=json.loads(settings), environ={}
    ) as k:
        print("open", flush=True)
        await k.start(service, model)
        print("running", flush=True)
        while True:
            await ask(k, model)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
