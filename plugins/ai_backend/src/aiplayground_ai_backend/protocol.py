"""uvicorn's HTTP protocol with limits: on headers, on slow clients, on connections.

uvicorn itself waits for ever for headers that do not come, and for a client that reads nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .corked import Corked

_REASONS = {431: "Request Header Fields Too Large", 408: "Request Timeout", 503: "Busy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """`max_headers` in bytes; `header_timeout` and `send_timeout` in seconds."""

    max_headers: int
    max_connections: int
    header_timeout: float
    send_timeout: float
    max_message: int = 2**25
    """Bytes of a WebSocket's message at most."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limits` and `log` come from the gateway, all else from uvicorn."""

    def __init__(
        self, *args: Any, limits: ConnectionLimits, log: logging.Logger, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        # uvicorn's own logger is the process's: nothing of ours goes there.
        self.logger = log
        self.access_log = False
        self._limits = limits
        self._heading = True
        self._heading_bytes = 0
        self._received = 0
        self._refused = False
        self._waiting: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]  # stands for it
        # The kernel's sockets name no protocol, so asyncio leaves Nagle's algorithm on: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, "There are too many connections. Try again in a moment.")
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in (self._waiting, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent, while its headers are short enough."""
        if self._refused:
            return
        self._received = len(data)
        self._heading_bytes += len(data)
        super().data_received(data)
        if self._heading and self._heading_bytes > self._limits.max_headers:
            self._refuse_headers()

    def on_message_begin(self) -> None:
        """Begin with a request."""
        super().on_message_begin()
        self._heading, self._heading_bytes = True, self._received
        if self._waiting is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        self._heading = False
        self._stop_waiting()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_headers:
            self._refuse_headers()
        else:
            super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on, unless it was refused meanwhile."""
        if not self._refused:
            self.transport = getattr(self.transport, "transport", self.transport)
            super().handle_websocket_upgrade()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take note of the body's end."""
        if not self._refused:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._limits.send_timeout, self._cut_off)

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _expect_headers(self) -> None:
        self._waiting = self.loop.call_later(self._limits.header_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        if self.transport.is_closing():
            return
        seconds = f"{self._limits.header_timeout:g}"
        self._refuse(408, f"The headers did not come within {seconds} s.")

    def _refuse_headers(self) -> None:
        most = self._limits.max_headers // 1024
        self._refuse(431, f"The headers are larger than {most} KiB. Send fewer or shorter ones.")

    def _refuse(self, status: int, message: str) -> None:
        if self._refused:
            return
        self._refused = True
        self._stop_waiting()
        code = -3 if status == 503 else -4
        body = json.dumps({"code": code, "message": message, "details": {}}).encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _cut_off(self) -> None:
        self._stalled = None
        self.transport.abort()
