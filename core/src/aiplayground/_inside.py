"""What a service serves from inside the kernel's own process, in place of a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable


class Inside:
    """Where a service without a worker answers, and how that ends."""

    def __init__(self, logger: logging.Logger) -> None:
        self.base_url: str | None = None
        self._logger = logger
        self._close: Callable[[], Awaitable[None]] | None = None

    def open(self, base_url: str, close: Callable[[], Awaitable[None]]) -> None:
        """Note an address; raises `RuntimeError` if there is one already."""
        if self._close is not None:
            raise RuntimeError(f"the service answers at {self.base_url} already")
        self.base_url, self._close = base_url, close

    async def close(self, limit: float) -> None:
        """End it, within `limit` seconds; nothing happens if there is nothing."""
        close, self._close, self.base_url = self._close, None, None
        if close is None:
            return
        try:
            async with asyncio.timeout(limit):
                await close()
        except Exception as error:
            # A stop goes on to its end whatever the plugin does: the log has it.
            self._logger.error("It did not close in order: %r", error, exc_info=error)
