"""uvicorn inside a process that is not its own: no signals, no logging set up, no exit."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any

import uvicorn

from aiplayground.errors import FailureClass, ServiceFailed
from aiplayground.serving.server import OwnedServer

from .protocol import ConnectionLimits, LimitedProtocol

BACKLOG = 2048

KEEP_ALIVE = 75
"""Seconds for which an idle connection stays open: one that is closed while a request is on its way
costs that request."""

STEP = 0.005
"""Seconds between looks whether the server is up."""

PING_INTERVAL = 20.0
"""Seconds between pings of a WebSocket; one that does not answer in as many is closed."""


class Server:
    """Serves an ASGI application on a bound socket; `grace` is in seconds."""

    def __init__(
        self, app: Any, limits: ConnectionLimits, log: logging.Logger, *, grace: float
    ) -> None:
        self._log = log
        self._server = OwnedServer(
            uvicorn.Config(
                app,
                http=partial(LimitedProtocol, limits=limits, log=log),  # type: ignore[arg-type]  # made like a class
                ws=partial(_websocket, limits, log),  # type: ignore[arg-type]  # made like a class
                ws_max_size=limits.max_message,
                ws_ping_interval=PING_INTERVAL,
                ws_ping_timeout=PING_INTERVAL,
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                lifespan="off",
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(grace)),
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket) -> None:
        """Return when connections are accepted; raises `ServiceFailed`."""
        self._task = asyncio.create_task(self._run(sock), name="gateway server")
        while not self._server.started and not self._task.done():
            await asyncio.wait({self._task}, timeout=STEP)
        if self._task.done():
            self._task.result()
            raise _ended("it ended at once")

    async def _run(self, sock: socket.socket) -> None:
        try:
            await self._server.serve(sockets=[sock])
        except SystemExit as error:
            # It must not take the process with it, which is not its own.
            raise _ended(f"exit code {error.code}") from error
        if not self._server.should_exit:
            self._log.error("The server ended by itself.")

    async def stop(self) -> None:
        """Accept no more, let answers in progress end within the grace, then close."""
        if self._task is None:
            return
        self._server.should_exit = True
        self._server.end()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error


def _websocket(limits: ConnectionLimits, log: logging.Logger, **given: Any) -> Any:
    from .ipc.websocket import LimitedWebSocket  # at the first WebSocket: it is slow to import

    return LimitedWebSocket(send_timeout=limits.send_timeout, log=log, **given)


def _ended(why: str) -> ServiceFailed:
    return ServiceFailed(
        f"ai-backend: the HTTP server did not come up ({why}). Its log has the rest.",
        failure=FailureClass.EXIT,
    )
