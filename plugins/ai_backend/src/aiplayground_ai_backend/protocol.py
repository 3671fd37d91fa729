"""uvicorn's HTTP protocol with limits: on headers, on slow clients, on connections.

uvicorn itself waits for ever for headers that do not come, and for a client that reads nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .cycle import KEY, Cycle

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
    """One connection. `limits` and `log` come from the gateway, all else from uvicorn.

    `watchers` are called when it ends.
    """

    def __init__(
        self, *args: Any, limits: ConnectionLimits, log: logging.Logger, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        # uvicorn's own logger is the process's: nothing of ours goes there.
        self.logger = log
        self.access_log = False
        self.watchers: set[Callable[[], None]] = set()
        self._limits = limits
        self._heading = True
        self._heading_bytes = 0
        self._received = 0
        self._refused = False
        self._idle_since = 0.0
        self._waiting: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        # The kernel's sockets name no protocol, so asyncio leaves Nagle's algorithm on: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, "There are too many connections. Try again in a moment.")
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell who works for it."""
        for timer in (self._waiting, self._stalled, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        for gone in tuple(self.watchers):
            gone()

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent, while its headers are short enough."""
        if self._refused:
            return
        self._received = len(data)
        self._heading_bytes += len(data)
        super().data_received(data)
        if not self._heading:
            return
        if self._heading_bytes > self._limits.max_headers:
            self._refuse_headers()
        elif self._waiting is None:
            self._expect_headers()  # only now: most come whole, and need no timer

    def on_message_begin(self) -> None:
        """Begin with a request."""
        super().on_message_begin()
        self._heading, self._heading_bytes = True, self._received

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        self._heading = False
        self._stop_waiting()
        if self._too_large():
            self._refuse_headers()
        elif not (self.parser.should_upgrade() and self._should_upgrade()):
            self._describe()
            self._begin()
        else:
            self.scope["method"] = self.parser.get_method().decode("ascii")

    def _too_large(self) -> bool:
        most = self._limits.max_headers
        if self._heading_bytes + len(self.headers) <= most:
            return False  # whatever else came with them: the cheaper look is enough
        return len(self.url) + sum(len(n) + len(value) + 4 for n, value in self.headers) > most

    def _describe(self) -> None:
        """Complete the request's scope."""
        url, scope = httptools.parse_url(self.url), self.scope
        path = url.path.decode("ascii")
        scope["http_version"] = self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""

    def _begin(self) -> None:
        keep = self.scope["http_version"] != "1.0" and self.parser.should_keep_alive()
        before: Any = self.cycle  # None at first, whatever uvicorn's types say
        self.cycle = Cycle(self, keep_alive=keep)
        scope: Any = self.scope
        scope[KEY] = self.cycle  # an extension of ours
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            # It came before the answer to the one before it.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_response_complete(self) -> None:
        """Go on with the request that came meanwhile, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep(self.timeout_keep_alive)

    def _keep(self, seconds: float) -> None:
        later = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = later

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer: one for many requests, which looks when it is due."""

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing has come since the last answer."""
        self.timeout_keep_alive_task = None
        if self._heading or not self.cycle.response_complete or self.transport.is_closing():
            return  # the next answer's end sets it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._keep(left)
        else:
            self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on, unless it was refused meanwhile."""
        if not self._refused:
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
