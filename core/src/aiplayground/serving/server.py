"""uvicorn where the process, or its end, is somebody else's affair."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class OwnedServer(uvicorn.Server):
    """Serves until `end`, rather than look ten times a second whether to go on.

    It takes no signals: uvicorn would replace the process's handlers, and end by raising the signal
    again (exit code -15 instead of 0).
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Accept no more; `serve` returns once the answers in progress have ended."""
        self._ended.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever owns the process."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end."""
        await self._ended.wait()
