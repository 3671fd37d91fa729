"""`/ipc`: sessions over WebSockets (ASGI)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError
from aiplayground.serving.asgi import Receive, Scope, Send, encode, headers_of
from aiplayground_ai_backend import access
from aiplayground_ai_backend.access import Access
from aiplayground_ai_backend.errors import TooManyRequests, body_of, status_of

if TYPE_CHECKING:
    from aiplayground_ai_backend.gateway import Gateway

    from .session import Encoder, Session

PATH = "/ipc"

SWITCHED, BAD_DATA, TOO_BIG = 101, 1003, 1009
HTTP_RESPONSE = "websocket.http.response"


class Door:
    """Lets clients in, and carries their messages."""

    def __init__(
        self, gateway: Gateway, service: str | None, on_defect: Callable[[Exception], None]
    ) -> None:
        self._gateway = gateway
        self._on_defect = on_defect
        self._kernel = gateway.kernel
        self._service = service
        self._limit = gateway.settings.max_body * 2**20
        self._open = 0
        self._encoder: Encoder | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        began = time.monotonic()
        await receive()
        try:
            trusted = self._check(headers_of(scope))
        except AIPlaygroundError as error:
            await _refuse(scope, send, error)
            self._note(scope, status_of(error), began)
            return
        self._open += 1
        try:
            await send({"type": "websocket.accept"})
            await self._converse(receive, send, trusted=trusted)
        finally:
            self._open -= 1
            self._note(scope, SWITCHED, began)

    def _check(self, headers: dict[str, str]) -> bool:
        """Raise unless the connection may be opened; return whether the client has the token.

        Browsers ask no CORS for a WebSocket: the Origin is all that tells a foreign page.
        """
        gateway = self._gateway
        access.check_host(headers, gateway.rules)
        access.check_origin(headers, "GET", gateway.rules)
        access.check_access(Access.OPEN, headers, gateway.rules, gateway.sessions)
        if self._open >= gateway.settings.max_ipc:
            raise TooManyRequests(
                f"{self._open} programs are connected already; the setting 'max_ipc' of ai-backend "
                f"is the limit.",
                1,
            )
        try:
            access.check_access(Access.CONTROL, headers, gateway.rules, gateway.sessions)
        except AIPlaygroundError:
            return False
        return True

    async def _converse(self, receive: Receive, send: Send, *, trusted: bool) -> None:
        from .session import Gone  # with all shapes of the API: slow to import

        turn = asyncio.Lock()
        seconds = self._gateway.settings.send_timeout
        gone = asyncio.Event()

        async def deliver(text: str) -> None:
            # A client that takes nothing for so long is not worth its memory.
            try:
                async with turn, asyncio.timeout(seconds):
                    await send({"type": "websocket.send", "text": text})
            except (TimeoutError, OSError, RuntimeError):
                gone.set()
                raise Gone("The program at the other end went away.") from None

        session = self._session(deliver, trusted=trusted)
        try:
            await self._read(session, receive, send, gone)
        finally:
            await session.close()

    def _session(self, deliver: Callable[[str], Awaitable[None]], *, trusted: bool) -> Session:
        from .session import Encoder, Own, Session

        self._encoder = self._encoder or Encoder()
        later = self._gateway.control.later
        return Session(
            self._kernel,
            deliver,
            trusted=trusted,
            own=Own(service=self._service, later=later) if self._service else None,
            encoder=self._encoder,
            on_defect=self._on_defect,
        )

    async def _read(
        self, session: Session, receive: Receive, send: Send, gone: asyncio.Event
    ) -> None:
        leaving = asyncio.ensure_future(gone.wait())
        try:
            while not gone.is_set():
                reading = asyncio.ensure_future(receive())
                await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                message = reading.result()
                if message["type"] != "websocket.receive":
                    return
                text = message.get("text")
                if text is None or len(text) > self._limit:
                    code = BAD_DATA if text is None else TOO_BIG
                    await send({"type": "websocket.close", "code": code})
                    return
                session.receive(text)
        finally:
            leaving.cancel()

    def _note(self, scope: Scope, status: int, began: float) -> None:
        gateway = self._gateway
        gateway.metrics.count_request(PATH, status)
        if gateway.settings.access_log:
            client = scope.get("client")
            line: dict[str, Any] = {
                "client": str(client[0]) if client else "",
                "method": "WEBSOCKET",
                "path": PATH,
                "status": status,
                "ms": round((time.monotonic() - began) * 1000, 1),
            }
            gateway.log.line("access", json.dumps(line))


async def _refuse(scope: Scope, send: Send, error: AIPlaygroundError) -> None:
    """Answer as HTTP does where the server can, else with a bare 403."""
    if HTTP_RESPONSE not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json")]
    start = {"type": f"{HTTP_RESPONSE}.start", "status": status_of(error), "headers": headers}
    await send(start)
    await send({"type": f"{HTTP_RESPONSE}.body", "body": encode(body_of(error, "plain"))})
