"""A connection to a worker: one request after another, and their answers as bytes.

Ours and not a library's: aiohttp's took a fifth of all that the gateway does for a request
(`docs/gateway.md` has figures). httptools parses. Source: RFC 9112, HTTP/1.1.
"""

from __future__ import annotations

import asyncio

import httptools

HIGH_WATER = 256 * 1024
"""Bytes of an answer that wait for a slow client before the worker has to wait, too."""

_DELIMITING = (b"content-length", b"transfer-encoding")


class Broken(Exception):
    """The connection is of no use any more, or what came over it is no HTTP."""


class Connection(asyncio.Protocol):
    """One connection. `patience` is how long, in seconds, the worker may send nothing.

    `status` is the answer's; `delimited` says that it tells where it ends: one that does not ends
    with its connection, whatever ended that.
    """

    def __init__(self, patience: float) -> None:
        self.status = 0
        self.delimited = False
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._waiter: asyncio.Future[None] | None = None
        self._whole = False
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        """Takes a piece of the body from the parser; there are many, so it is the list's own."""
        self._size = 0
        self._answered = self._headed = False
        self._ended = True
        self._kept = True
        self._paused = False
        self._error: Broken | None = None
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)  # looks for its methods now

    # What the gateway does with it --------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may follow."""
        return self._ended and self._kept and self._error is None

    @property
    def answered(self) -> bool:
        """Whether anything of an answer has come."""
        return self._answered

    async def ask(self, request: bytes, *, whole: bool) -> None:
        """Send a request; returns with the answer's head, or with all of it if it is wanted whole.

        Raises `Broken`.
        """
        self._pieces.clear()
        self._size, self._whole = 0, whole
        self._answered = self._headed = self._ended = self.delimited = False
        self._heard = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._check)
        self._transport.write(request)
        while not (self._ended if whole else self._headed):
            await self._news()

    async def read(self) -> bytes:
        """Return what has come of the body, waiting for some of it; nothing: this was its end.

        Raises `Broken` where it broke off, after all that came before.
        """
        while not self._pieces:
            if self._ended:
                return b""
            await self._news()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._heard = self._loop.time()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Close it at once, whatever is on its way."""
        self._kept = False
        self._transport.abort()

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiting = self._waiter is not None and not self._waiter.done()
        if waiting and (self._ended or self._error is not None or not self._whole):
            assert self._waiter is not None
            self._waiter.set_result(None)

    def _fail(self, error: Broken) -> None:
        self._error = self._error or error
        self._transport.abort()
        self._wake()

    def _check(self) -> None:
        """Look whether the worker has been silent for too long: one timer for many requests."""
        self._timer = None
        if self._ended or self._error is not None:
            return
        # What waits for a slow client is not the worker's silence.
        unread = self._pieces and not self._whole
        silent = 0.0 if unread else self._loop.time() - self._heard
        if silent >= self._patience:
            self._fail(Broken(f"it sent nothing for {self._patience:g} s"))
        else:
            self._timer = self._loop.call_later(self._patience - silent, self._check)

    # What the event loop tells ------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in a part of an answer."""
        if self._ended:
            self._fail(Broken("it sent what nobody had asked for"))
            return
        self._answered = True
        self._heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken(f"its answer is no HTTP: {error}"))
            return
        self._size += len(data)
        if self._size > HIGH_WATER and not self._whole and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        if self._timer is not None:
            self._timer.cancel()
        self._kept = False
        if not self._ended and self._headed and not self.delimited and exc is None:
            self._ended = True
        elif not self._ended:
            self._error = self._error or Broken(str(exc or "it was closed before the end"))
        self._wake()

    # What the parser tells ----------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look at a header."""
        if name.lower() in _DELIMITING:
            self.delimited = True

    def on_headers_complete(self) -> None:
        """Take note of the answer's head, unless it is an interim one: the real one follows."""
        self.status = self._parser.get_status_code()
        self._headed = self.status >= 200
        self.delimited = self.delimited and self._headed

    def on_message_complete(self) -> None:
        """Take note of the answer's end."""
        if self._headed:
            self._ended = True
            self._kept = self._kept and self._parser.should_keep_alive()
            self.idle_since = self._loop.time()
