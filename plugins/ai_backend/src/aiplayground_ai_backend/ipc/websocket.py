"""uvicorn's WebSocket protocol, with a limit on clients that read nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """One connection; `send_timeout` is in seconds, all else is uvicorn's."""

    def __init__(self, *args: Any, send_timeout: float, log: logging.Logger, **more: Any) -> None:
        super().__init__(*args, **more)
        # uvicorn's own logger is the process's. What it says of each connection, the access log
        # says already.
        self.logger = logging.Logger(f"{log.name}.websocket", logging.WARNING)
        self.logger.parent = log
        self.conn.logger = self.logger
        self._send_timeout = send_timeout
        self._stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._send_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        super().resume_writing()
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close; one that does not read would only keep the server waiting."""
        stuck = not self.writable.is_set()
        super().shutdown()
        if stuck:
            self.transport.abort()

    def _forget(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
