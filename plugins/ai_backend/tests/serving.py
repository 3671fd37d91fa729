"""Gateways over kernels of a test's own, and workers that answer what a test says."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.asgi import serving
from tests.fakes import QUICK, Backend, Fake

import aiplayground_ai_backend.plugin as ai_backend
from aiplayground import Kernel
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import Capability, SetupProgress

Respond = Callable[["Call"], Awaitable[None]]

EVERYTHING = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING})


class Call:
    """A request as a worker of a test sees it, and the means to answer."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.body: bytes = b""

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.scope["headers"]}

    async def read(self) -> None:
        more = True
        while more:
            message = await self.receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)

    async def head(self, status: int, kind: str) -> None:
        headers = [(b"content-type", kind.encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, data: bytes, *, last: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": not last})

    async def json(self, body: Any, status: int = 200) -> None:
        await self.head(status, "application/json")
        await self.piece(json.dumps(body).encode(), last=True)

    async def events(self, *pieces: bytes) -> None:
        await self.head(200, "text/event-stream")
        for each in pieces:
            await self.piece(each)
        await self.piece(b"", last=True)


@asynccontextmanager
async def worker(respond: Respond) -> AsyncIterator[str]:
    """Serve what `respond` answers; yields the base URL."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call = Call(scope, receive, send)
        await call.read()
        await respond(call)

    async with serving(app, force=True) as url:
        yield url


class Attached(Backend):
    """A backend whose worker is one of a test's, found at `url`."""

    def __init__(self, url: str, name: str = "attached", **spec: Any) -> None:
        super().__init__(name, **{"api": "openai", "capabilities": EVERYTHING, **spec})
        self.url = url

    @hookimpl
    async def endpoint(self, model: str | None) -> str:
        return self.url

    @hookimpl
    async def health(self) -> Any:
        from aiplayground.specs import Health

        return Health(ok=True)


def make_kernel(
    home: Path,
    *plugins: Any,
    own: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Kernel:
    """Return a kernel with the gateway and these plugins; `own` are the gateway's settings."""
    named = {each.spec.name if hasattr(each, "spec") else "extra": each for each in plugins}
    named |= more or {}
    settings = {**QUICK, "services": {"ai-backend": {"port": free_port(), **(own or {})}}}
    return Kernel(
        home=home,
        plugins={**named, "ai-backend": ai_backend},
        discover=False,
        settings=settings,
        environ={},
        **options,
    )


@asynccontextmanager
async def gateway(
    home: Path, *plugins: Any, own: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Kernel, httpx.AsyncClient]]:
    """Serve a gateway; yields its kernel and a client of it."""
    async with make_kernel(home, *plugins, own=own, exclusive=True, **options) as kernel:
        info = await kernel.start("ai-backend")
        async with httpx.AsyncClient(base_url=info.base_url, timeout=30, trust_env=False) as client:
            yield kernel, client


def token(kernel: Kernel) -> dict[str, str]:
    """Return the header that lets a client change something."""
    return {"Authorization": f"Bearer {(kernel.paths.runtime / 'token').read_text()}"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def question(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


def data(text: str, **more: Any) -> bytes:
    """Return an event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Engine(Fake):
    """A backend that can be set up."""

    @hookimpl
    async def setup(self) -> AsyncIterator[SetupProgress]:
        yield SetupProgress(stage="download", progress=50, message="half of it")
        yield SetupProgress(stage="verify", progress=100)

    @hookimpl
    async def installed_version(self) -> str | None:
        return "1.2.3"
