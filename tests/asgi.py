"""ASGI applications over a real socket, in the loop of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The test run keeps its own signal handlers.
        yield


@asynccontextmanager
async def serving(app: Any, *, force: bool = False) -> AsyncIterator[str]:
    """Serve an application; yields its base URL. `force`: wait for no answer at the end."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
    server = _Server(config)
    # With the protocol named, asyncio turns off Nagle's algorithm, which costs 40 ms an answer.
    with socket.socket(proto=socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = force
            await running
