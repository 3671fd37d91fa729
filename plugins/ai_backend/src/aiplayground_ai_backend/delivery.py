"""Sending an answer while it is being made.

The response starts with the first piece or the first heartbeat, so that an error before either has
its own HTTP status. Source of the format: the HTML standard, section 9.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias

from aiplayground.errors import AIPlaygroundError
from aiplayground.serving.asgi import encode, end_tasks

from .errors import internal

if TYPE_CHECKING:
    from .exchange import Exchange

EventsOf: TypeAlias = Callable[[AIPlaygroundError], bytes]
"""From an error to the event that tells it."""

_HEAD = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_BOUNDARIES = (b"\n\n", b"\r\n\r\n")


def event(body: dict[str, object], name: str | None = None) -> bytes:
    """Return one server-sent event with JSON data."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode(body) + b"\n\n"


class Delivery:
    """Delivers one event stream; the generator is closed at once when the client goes away.

    `heartbeat` is in seconds. `on_defect` is told of an exception that is no error of ours.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        heartbeat: float,
        tell: EventsOf,
        on_defect: Callable[[Exception], None],
    ) -> None:
        self._exchange = exchange
        self._heartbeat = heartbeat
        self._tell = tell
        self._on_defect = on_defect
        self._position: Callable[[], int] | None = None
        self._last = b"\n\n"
        self._sending = False
        self._seen = 0
        self._beating: asyncio.Task[None] | None = None

    def on_wait(self, position: Callable[[], int] | None) -> None:
        """Take what tells the position in a queue: heartbeats then say it."""
        self._position = position

    async def run(self, events: AsyncGenerator[bytes, None]) -> None:
        """Send all of it. Raises what went wrong if nothing has been sent yet, or `ClientGone`."""
        self._seen = self._exchange.sent
        self._wait()
        try:
            # Leaving it means that the engine has been told to stop.
            with self._exchange.there():
                await self._pump(events)
        finally:
            self._timer.cancel()
            if self._beating is not None:
                await end_tasks(self._beating)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat, self._listen)

    def _listen(self) -> None:
        """Send a heartbeat if nothing was sent since the last look: one timer for many pieces."""
        # Only between two events, and not while the client does not even take the last one.
        silent = self._seen == self._exchange.sent and not self._sending
        if silent and self._last.endswith(_BOUNDARIES):
            text = f": position {self._position()}\n\n" if self._position else ": waiting\n\n"
            self._beating = asyncio.ensure_future(self._send(text.encode()))
        self._seen = self._exchange.sent
        self._wait()

    async def _pump(self, events: AsyncGenerator[bytes, None]) -> None:
        try:
            async with aclosing(events):
                async for data in events:
                    await self._send_in_turn(data)
                    self._last = data if len(data) > 3 else self._last[-3:] + data
        except Exception as error:
            if not self._exchange.started:
                raise
            await self._send_in_turn(self._explain(error))
        await self._end()

    def _explain(self, error: Exception) -> bytes:
        if not isinstance(error, AIPlaygroundError):
            self._on_defect(error)
            error = internal(error)
        self._exchange.facts["error"] = error.message
        # What came last may have been cut off in the middle of an event.
        gap = b"" if self._last.endswith(_BOUNDARIES) else b"\n\n"
        return gap + self._tell(error)

    async def _send_in_turn(self, data: bytes) -> None:
        if self._beating is not None:
            await asyncio.wait({self._beating})
            self._beating = None
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        self._sending = True
        try:
            if not self._exchange.started:
                await self._exchange.start(200, _HEAD, held=True)
            await self._exchange.write(data)
        finally:
            self._sending = False

    async def _end(self) -> None:
        if self._beating is not None:
            await asyncio.wait({self._beating})
        if not self._exchange.started:
            await self._exchange.start(200, _HEAD, held=True)
        await self._exchange.finish()
