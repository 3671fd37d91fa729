"""One HTTP request on its way to an answer, and the little of HTTP that the gateway needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiplayground.errors import InvalidParameters
from aiplayground.serving.asgi import (
    ClientGone,
    Receive,
    Scope,
    Send,
    WhileThere,
    encode,
    headers_of,
)

from .cycle import HELD, KEY, Cycle

Headers = Iterable[tuple[bytes, bytes]]

LINGER = 5.0
"""Seconds for which a body that is too large is still read: who cannot send on sees no 413."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may be: `max_body` in bytes, `body_timeout` in seconds."""

    max_body: int
    body_timeout: float


class Exchange:
    """A request and its answer.

    `facts` are what the access log tells of it; `trusted`: it carries the kernel's token; `trace`
    has the headers of the trace that workers are told, `route` the template of what answers it.
    `fresh_id` names it where the client did not.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: str,
        limits: Limits,
        fresh_id: str,
    ) -> None:
        self.scope = scope
        self.path = path
        self.method: str = scope["method"]
        self.headers = headers_of(scope)
        self.route = "other"
        self.trace: Mapping[str, str] = self.headers
        self.receive = receive
        # Taken out: the two would hold each other. Another server than ours has put none in.
        self._cycle: Cycle | None = scope.pop(KEY, None)
        self.status: int | None = None
        self.sent = 0
        self.trusted = False
        self.facts: dict[str, Any] = {}
        self.extra: list[tuple[bytes, bytes]] = []
        given = self.headers.get("x-request-id", "")
        self.id = given if given and _REQUEST_ID.fullmatch(given) else fresh_id
        self._send = send
        self._limits = limits

    @property
    def started(self) -> bool:
        """Whether a part of the answer is out."""
        return self.status is not None

    @property
    def client(self) -> str:
        """The address of the other end."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def there(self) -> WhileThere:
        """Return a block that is cancelled, and raises `ClientGone`, if the client goes away."""
        return WhileThere(self.receive, self._cycle)

    async def start(self, status: int, headers: Headers = (), *, held: bool = False) -> None:
        """Send the head of the answer; `held`: a part of the body follows at once."""
        self.status = status
        every = [*headers, (b"x-request-id", self.id.encode()), *self.extra]
        message = {"type": "http.response.start", "status": status, "headers": every}
        if held and self._cycle is not None:
            message[HELD] = True
        await self._send(message)

    async def write(self, data: bytes) -> None:
        """Send a piece of the answer; waits while the client does not read."""
        self.sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece."""
        self.sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(
        self, status: int, content: bytes, headers: Headers = (), kind: bytes | None = None
    ) -> None:
        """Send a whole answer, JSON unless `kind` says otherwise."""
        length = (b"content-length", str(len(content)).encode())
        content_type = (b"content-type", kind) if kind else _JSON
        await self.start(status, [content_type, length, *headers], held=True)
        await self.finish(b"" if self.method == "HEAD" else content)

    async def reply_json(
        self, status: int, body: Mapping[str, Any] | list[Any], headers: Headers = ()
    ) -> None:
        """Send a JSON document."""
        await self.reply(status, encode(body), headers)  # type: ignore[arg-type]  # a list will do

    async def body(self) -> bytes:
        """Read the whole body.

        Raises `InvalidParameters` if it is too large or comes too slowly, `ClientGone`.
        """
        if self._cycle is not None:
            whole = self._cycle.whole_body(self._limits.max_body)
            if whole is not None:
                return whole  # the usual case: no wait, and no deadline for one
        return await self._in_pieces()

    async def _in_pieces(self) -> bytes:
        length = self.headers.get("content-length", "")
        pieces: list[bytes] = []
        total = int(length) if length.isdecimal() and len(length) < 20 else 0
        more, read = total <= self._limits.max_body, 0
        while more:
            piece, more = await self._piece()
            read += len(piece)
            if read > self._limits.max_body:
                break
            pieces.append(piece)
        if max(read, total) > self._limits.max_body:
            raise await self._too_large()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _piece(self) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                message = await self.receive()
        except TimeoutError:
            self.extra.append((b"connection", b"close"))
            raise InvalidParameters(
                f"Nothing of the body came for {self._limits.body_timeout:g} s. Send it faster.",
                details={"reason": "slow"},
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def _too_large(self) -> InvalidParameters:
        """Read on for a moment, then refuse: a client that is cut off at once sees no answer."""
        self.extra.append((b"connection", b"close"))
        left, more = 2 * self._limits.max_body, True
        try:
            async with asyncio.timeout(LINGER):
                while more and left > 0:
                    piece, more = await self._piece()
                    left -= len(piece)
        except TimeoutError:
            pass  # it had its moment
        return InvalidParameters(
            f"The body is larger than {self._limits.max_body // 2**20} MiB. Send a shorter "
            f"request, or raise the setting 'max_body' of ai-backend.",
            details={"reason": "too-large"},
        )
