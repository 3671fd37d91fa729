"""Routes that plugins bring (`register_routes`), among the gateway's own.

They are Starlette's `Route`, `WebSocketRoute` or `Mount`, or whatever has their `matches` and
`handle`; Starlette itself is the plugin's dependency and not ours. An endpoint finds the kernel in
`scope["aiplayground.kernel"]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, InvalidParameters
from aiplayground.serving.asgi import Receive, Scope, Send

from .access import Access

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

    from .exchange import Exchange

KERNEL = "aiplayground.kernel"
OPEN_ATTRIBUTE = "aiplayground_open"
"""An endpoint with this attribute set to True needs no token."""

_PARTIAL, _FULL = 1, 2
"""The values of Starlette's `Match`: the path alone, and the method, too."""


class Mounted:
    """A plugin's route that matches a request."""

    def __init__(self, route: Any, child: dict[str, Any], kernel: Kernel) -> None:
        self._route = route
        self._child = child | {KERNEL: kernel}
        self.template: str = getattr(route, "path", "plugin")
        wanted = getattr(getattr(route, "endpoint", None), OPEN_ATTRIBUTE, False)
        self.access = Access.OPEN if wanted is True else Access.CONTROL

    async def handle(self, exchange: Exchange) -> None:
        """Let the route answer; status and size are noted on the way."""
        scope = {**exchange.scope, **self._child}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await exchange.start(message["status"], message.get("headers", ()))
            elif message.get("more_body", False):
                await exchange.write(message.get("body", b""))
            else:
                await exchange.finish(message.get("body", b""))

        await self._route.handle(scope, exchange.receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route talk over a WebSocket."""
        await self._route.handle({**scope, **self._child}, receive, send)


class Mounts:
    """The routes of all plugins of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._routes = kernel.routes()

    def find(self, exchange: Exchange) -> Mounted | None:
        """Return the route that answers a request, if any does.

        Raises `InvalidParameters` where there is one for other methods alone.
        """
        found = self._matching(exchange.scope)
        if found is None and (methods := self._methods(exchange.scope)):
            raise InvalidParameters(
                f"{exchange.path} answers {', '.join(methods)}, not {exchange.method}.",
                details={"reason": "method"},
            )
        return found

    def _methods(self, scope: Scope) -> list[str]:
        """Return the methods of the routes whose path alone matches."""
        there = [each for each in self._routes if each.matches(scope)[0].value == _PARTIAL]
        return sorted({name for each in there for name in getattr(each, "methods", None) or ()})

    async def websocket(
        self, scope: Scope, receive: Receive, send: Send, check: Callable[[Scope], None]
    ) -> None:
        """Let a plugin's WebSocket route answer, or refuse: every one needs the token."""
        found = self._matching(scope)
        try:
            check(scope)
        except AIPlaygroundError:
            found = None
        if found is None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await found.serve(scope, receive, send)

    def _matching(self, scope: Scope) -> Mounted | None:
        for route in self._routes:
            match, child = route.matches(scope)
            if match.value == _FULL:
                return Mounted(route, dict(child), self._kernel)
        return None
