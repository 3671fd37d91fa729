"""The gateway as the kernel's service: socket, secrets, runtime file, server."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from aiplayground.secrets import write_private

from .access import is_loopback
from .gateway import Gateway
from .protocol import ConnectionLimits
from .server import Server
from .sessions import api_key
from .spans import load_sdk

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext
    from aiplayground.kernel import Kernel

    from .settings import Settings

RUNTIME_FILE = "serve.json"
TOKEN_FILE = "token"


async def start_gateway(ctx: ServiceContext) -> None:
    """Serve on the service's port until the kernel stops the service. Raises `ServiceFailed`."""
    settings: Settings = ctx.settings
    kernel = ctx.kernel
    key = None
    if not is_loopback(settings.host):
        key = await ctx.run_sync(api_key, kernel.secrets)
    await ctx.run_sync(load_sdk)
    sock = ctx.bind(settings.host)
    try:
        port = int(sock.getsockname()[1])
        gateway = Gateway(kernel, settings, api_key=key, service=ctx.service, port=port)
        server = Server(
            gateway, _limits(settings), ctx.logger, grace=kernel.settings.timeouts.drain
        )
        await server.start(sock)
    except BaseException:
        sock.close()
        raise
    note = RuntimeNote(kernel, gateway, _address(settings.host, port))

    async def close() -> None:
        note.remove()
        gateway.control.end()
        await server.stop()
        await gateway.aclose()

    ctx.serve(note.url, close)
    await ctx.run_sync(note.write)


class RuntimeNote:
    """What the one kernel of a home tells other programs: where it answers, and with which token.

    An embedded kernel is not alone in its home and writes nothing: its program has the gateway.
    """

    def __init__(self, kernel: Kernel, gateway: Gateway, url: str) -> None:
        self.url = url
        self._gateway = gateway
        self._written = kernel.exclusive
        self._folder = kernel.paths.runtime

    def write(self) -> None:
        """Write the files, readable for the user alone. Blocks."""
        if not self._written:
            return
        token = self._folder / TOKEN_FILE
        write_private(token, self._gateway.token)
        link = f"{self.url}/login?code={self._gateway.sessions.new_code()}"
        told = {
            "pid": os.getpid(),
            "url": self.url,
            "token_file": str(token),
            "link": link,
            "started": time.time(),
        }
        if self._gateway.rules.api_key is not None:
            told["api_key"] = "aipg config api-key --show"
        write_private(self._folder / RUNTIME_FILE, json.dumps(told))

    def remove(self) -> None:
        """Remove the files: a new start writes new ones."""
        if self._written:
            for name in (RUNTIME_FILE, TOKEN_FILE):
                (self._folder / name).unlink(missing_ok=True)


def _limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        max_headers=settings.max_headers * 1024,
        max_connections=settings.max_connections,
        header_timeout=settings.header_timeout,
        send_timeout=settings.send_timeout,
        max_message=settings.max_body * 2**20,
    )


def _address(host: str, port: int) -> str:
    """Return the base URL that programs on this computer use."""
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
