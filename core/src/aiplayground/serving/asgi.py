"""The little of HTTP that a worker needs, straight on ASGI.

A framework would cost each worker 55 ms of start-up, and this is all of it that would be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias, TypeVar

from aiplayground.errors import InvalidParameters

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request body; more is answered with 413."""

DRAINED = 8 * MAX_BODY
"""How much of a body that is too large is still read: a client that cannot send on sees no 413."""


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the request's headers by lower-case name; of a repeated one the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive) -> bytes:
    """Read the whole body. Raises `InvalidParameters` if it is too large, or `ClientGone`."""
    pieces: list[bytes] = []
    total, more = 0, True
    while more and total <= DRAINED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        total += len(message.get("body", b""))
        if total <= MAX_BODY:
            pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    if total > MAX_BODY:
        raise InvalidParameters(
            f"The body is larger than {MAX_BODY // 2**20} MiB. Send a shorter request.",
            details={"reason": "too-large"},
        )
    return b"".join(pieces)


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Presence(Protocol):
    """What tells at once when a client goes; servers that have none leave it to `receive`."""

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the client goes away, until `unwatch`."""

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Call it no more."""


async def until_gone(work: Awaitable[T], receive: Receive, presence: Presence | None = None) -> T:
    """Do the work unless the client goes away first; then cancel it and raise `ClientGone`."""
    with WhileThere(receive, presence):
        return await work


class WhileThere:
    """A block that is cancelled when the client goes away, and raises `ClientGone` then.

    It cancels the task that it is in, as `asyncio.timeout` does: a task of its own for the work
    would cost each request a turn of the loop. What the block does at its end is waited for.
    """

    __slots__ = ("_cancelling", "_inside", "_left", "_presence", "_receive", "_task", "_watch")

    def __init__(self, receive: Receive, presence: Presence | None = None) -> None:
        self._receive = receive
        self._presence = presence
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling, self._inside = task, task.cancelling(), True
        if self._presence is not None:
            self._presence.watch(self._leave)
            return
        self._watch = asyncio.ensure_future(disconnected(self._receive))
        self._watch.add_done_callback(self._gone)

    def _gone(self, watch: asyncio.Future[None]) -> None:
        # Asked for in any case: an error of a server's that nobody waits for has no other reader.
        if not watch.cancelled() and watch.exception() is None:
            self._leave()

    def _leave(self) -> None:
        if self._inside:
            self._left = True
            self._task.cancel()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._inside = False
        if self._presence is not None:
            self._presence.unwatch(self._leave)
        else:
            self._watch.cancel()
        if self._left and self._task.uncancel() <= self._cancelling and error is not None:
            raise ClientGone from error


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, so that what they hold is released."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        # An error of a task that nobody waits for any more has no reader left.
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: Mapping[str, Any] | str) -> bytes:
    """Write compact JSON in UTF-8."""
    return _JSON.encode(value).encode()


async def send_json(send: Send, status: int, body: Mapping[str, Any]) -> None:
    """Send a whole response."""
    await send_bytes(send, status, encode(body), b"application/json")


async def send_bytes(send: Send, status: int, content: bytes, kind: bytes) -> None:
    """Send a whole response of a content type."""
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
