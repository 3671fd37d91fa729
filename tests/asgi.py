"""ASGI applications over a real socket, in the loop of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from aiplayground.serving.server import OwnedServer


@asynccontextmanager
async def serving(app: Any, *, force: bool = False) -> AsyncIterator[str]:
    """Serve an application; yields its base URL. `force`: wait for no answer at the end."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
    server = OwnedServer(config)
    # With the protocol named, asyncio turns off Nagle's algorithm, which costs 40 ms an answer.
    with socket.socket(proto=socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = force
            server.end()
            await running
