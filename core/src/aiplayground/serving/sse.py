"""Send an answer while it is being made, as server-sent events.

Source of the format: the HTML standard, section 9.2; `data: [DONE]` is OpenAI's end mark, and a
stream without it was cut short.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError

from .asgi import ClientGone, Receive, Send, disconnected, encode, end_tasks
from .metrics import Watch
from .replies import Envelope, error_body, usage_object

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk, Usage

HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent, so that nobody in between gives up."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_DONE = b"data: [DONE]\n\n"


class EventStream:
    """Delivers one answer.

    The response starts with the first chunk or the first heartbeat, so that an error before
    either still has its own HTTP status. The engine's generator is closed when the client goes.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[ChatChunk, None],
        envelope: Envelope,
        watch: Watch,
        *,
        include_usage: bool,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._chunks = chunks
        self._envelope = envelope
        self._watch = watch
        self._texts = _TextEvents(envelope)
        self._include_usage = include_usage
        self._heartbeat = heartbeat
        self._started = False
        self._sends = 0
        self._lengths: dict[int, int] = {}
        self._lock = asyncio.Lock()

    async def deliver(self, receive: Receive, send: Send) -> None:
        """Send all of it. Raises what the engine raised if nothing has been sent yet."""
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await self._wait(pump, gone, send)
        finally:
            # Waiting for the pump means that the engine has been told to stop.
            await end_tasks(gone, *([] if pump.done() else [pump]))
        if pump.cancelled():
            raise ClientGone
        pump.result()

    async def _wait(
        self, pump: asyncio.Future[None], gone: asyncio.Future[None], send: Send
    ) -> None:
        while not pump.done() and not gone.done():
            before = self._sends
            await asyncio.wait(
                {pump, gone}, timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED
            )
            if not pump.done() and not gone.done() and before == self._sends:
                await self._send(send, b": waiting\n\n")

    async def _pump(self, send: Send) -> None:
        try:
            await self._send_chunks(send)
        except Exception as error:
            if not self._started:
                raise
            await self._send_error(send, error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunks(self, send: Send) -> None:
        with self._watch as watch:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    watch.see(chunk)
                    await self._send(send, self._events(chunk))
        usage = watch.totals.usage
        await self._send(send, (b"" if usage is None else self._closing(usage)) + _DONE)

    def _closing(self, usage: Usage) -> bytes:
        if self._include_usage:
            return _event(self._envelope.closing(usage))
        # A comment, which clients skip: for a gateway that passes the stream on and counts.
        return b": " + encode({"usage": usage_object(usage)}) + b"\n\n"

    def _events(self, chunk: ChatChunk) -> bytes:
        length = self._lengths.get(chunk.index)
        self._lengths[chunk.index] = (length or 0) + len(chunk.text)
        if length is not None and _is_text(chunk):
            return self._texts.make(chunk)
        event = _event(self._envelope.piece(chunk, length or 0))
        opening = self._envelope.opening(chunk.index) if length is None else None
        return event if opening is None else _event(opening) + event

    async def _send_error(self, send: Send, error: Exception) -> None:
        if not isinstance(error, AIPlaygroundError):
            traceback.print_exception(error)
            error = AIPlaygroundError("The engine failed in the middle of the answer.")
        await self._send(send, _event(error_body(error, openai=True)))

    async def _send(self, send: Send, data: bytes) -> None:
        self._sends += 1
        if not self._started or self._lock.locked():
            await self._start(send)
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _start(self, send: Send) -> None:
        # Heartbeats come from another task than the chunks, and neither may be first.
        async with self._lock:
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


class _TextEvents:
    """Makes the events of chunks that are text and nothing else, as nearly all are.

    All but the text is the same in each of an answer's, so that is encoded once.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._frames: dict[int, tuple[bytes, bytes]] = {}

    def make(self, chunk: ChatChunk) -> bytes:
        """Return the event."""
        frame = self._frames.get(chunk.index)
        if frame is None:
            # What follows the text is ours alone: the last mark is the right one.
            head, _, tail = _event(self._envelope.piece(chunk)).rpartition(encode(chunk.text))
            frame = self._frames[chunk.index] = head, tail
        return frame[0] + encode(chunk.text) + frame[1]


def _is_text(chunk: ChatChunk) -> bool:
    return bool(
        chunk.text
        and not chunk.reasoning
        and chunk.tool_calls is None
        and chunk.finish_reason is None
        and chunk.logprobs is None
    )


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + encode(body) + b"\n\n"
