"""One request on a connection, and its answer: uvicorn's, made cheaper.

uvicorn's own looks at each header with two patterns, sends the head of an answer apart from its
body, and can tell of a client's going only to a task that waits for it: together a quarter of what
the gateway did for a request (`docs/gateway.md` has figures). Source: the ASGI specification, 2.3.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from .protocol import LimitedProtocol

KEY = "aiplayground.cycle"
"""Under which a request's scope has its cycle, for who takes it out (`Exchange`)."""

HELD = "aiplayground.held"
"""In the message of a head that a part of the body follows at once, without a wait in between."""

JOINED = 65_536
"""Bytes of a body that are joined to its head; more is not worth the copy."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = (b"content-length", b"transfer-encoding", b"connection")
_WITHOUT_BODY = (204, 304)

Message = Any
"""An ASGI message: a dictionary whose shape its `type` says."""


class Cycle(RequestResponseCycle):
    """What an application is given of one request on a connection."""

    def __init__(self, connection: LimitedProtocol, *, keep_alive: bool) -> None:
        # Not the base class's own, which makes more than is used here.
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.on_response = connection.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
        self._watchers = connection.watchers
        self._head = b""
        self._news = False
        self._event: asyncio.Event | None = None

    # What uvicorn's connection tells ------------------------------------------------------

    @property
    def message_event(self) -> Cycle:  # type: ignore[override]  # uvicorn only calls `set`
        """What is told of every news."""
        return self

    def set(self) -> None:
        """Wake who waits for news: more of the body, or that the client has gone."""
        self._news = True
        if self._event is not None:
            self._event.set()
            self._event = None

    # What only the gateway asks -----------------------------------------------------------

    def whole_body(self, most: int) -> bytes | None:
        """Return the body if all of it is there, unread, and no longer than `most`; else None."""
        if self.more_body or not self._news or len(self.body) > most or self.disconnected:
            return None
        self._news = False
        body, self.body = bytes(self.body), bytearray()
        return body

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the client goes away, soon if it has gone; until `unwatch`."""
        self._watchers.add(gone)
        self.flow.resume_reading()  # it stops at a large body; who reads nothing sees nobody go
        if self.disconnected:
            asyncio.get_running_loop().call_soon(gone)

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.discard(gone)

    # ASGI ---------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Wait for more of the body, or for the client to go."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not (self.disconnected or self.response_complete):
            self.flow.resume_reading()
        while not (self._news or self.disconnected or self.response_complete):
            self._event = self._event or asyncio.Event()
            await self._event.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        self._news = False
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send the head, which goes out with what follows it, or a part of the body."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._begin(message["status"], message.get("headers", ()))
            if HELD not in message:
                asyncio.get_running_loop().call_soon(self._flush)
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"an unexpected ASGI message: '{kind}'")

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        closing = False
        for name, value in headers:
            line, matters = _line(name, value)
            lines.append(line)
            if matters:
                closing = self._note(line) or closing
        if not self.keep_alive and not closing:
            lines.append(b"connection: close\r\n")
        with_body = self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY
        if self.chunked_encoding is None and with_body:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _note(self, line: bytes) -> bool:
        """Look at a header that says how the answer ends; return whether it is the connection."""
        name, _, value = line.rstrip().lower().partition(b": ")
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length, self.chunked_encoding = int(value), False
        elif name == b"transfer-encoding" and value == b"chunked":
            self.expected_content_length, self.chunked_encoding = 0, True
        elif name == b"connection" and b"close" in value:
            self.keep_alive = False
            return True
        return False

    def _go_on(self, data: bytes, *, more: bool) -> None:
        self._write(self._framed(data, more=more))
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _framed(self, data: bytes, *, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return b""
        if self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return piece if more else piece + b"0\r\n\r\n"
        self.expected_content_length -= len(data)
        if self.expected_content_length < 0:
            raise RuntimeError("Response content longer than Content-Length")
        return data

    def _write(self, data: bytes) -> None:
        """Write a part of the body: the first with the head, in one packet if it is small."""
        head, self._head = self._head, b""
        if head and len(data) > JOINED:
            self.transport.write(head)
        elif head:
            data = head + data
        if data:
            self.transport.write(data)

    def _flush(self) -> None:
        """Write a head that no body has followed in its turn of the loop."""
        head, self._head = self._head, b""
        if head and not self.disconnected:
            self.transport.write(head)


@lru_cache(maxsize=256)
def _line(name: bytes, value: bytes) -> tuple[bytes, bool]:
    """Return a header as it is sent, and whether it says how the answer ends.

    Raises `RuntimeError` for one that would be another thing.
    """
    if not _NAME.fullmatch(name) or _NO_VALUE.search(value):
        raise RuntimeError(f"no HTTP header: {name!r}")
    name = name.lower()
    return name + b": " + value + b"\r\n", name in _FRAMING
