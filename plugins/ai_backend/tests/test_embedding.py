"""The gateway inside somebody else's program."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.ai_backend.tests.serving import gateway, make_kernel, question, token
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from tests.fakes import Fake, nothing_leaks

from aiplayground import hookimpl
from aiplayground.errors import ServiceFailed
from aiplayground_ai_backend import create_app

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def test_signal_handlers_and_root_logger_stay_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    loggers = {name: logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "asyncio")}

    def state() -> Any:
        logs = {name: (each.level, list(each.handlers)) for name, each in loggers.items()}
        handlers = [signal.getsignal(number) for number in NUMBERS]
        return handlers, root.level, list(root.handlers), logs, signal.set_wakeup_fd(-1)

    before = state()
    async with gateway(tmp_path, Fake()) as (_, client):
        assert state() == before
        assert (await client.post("/v1/chat/completions", json=question())).status_code == 200
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"no http\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()
        assert state() == before
    assert state() == before
    assert capfd.readouterr() == ("", "")


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async with gateway(tmp_path / "warm", Fake()) as (_, client):
        await client.post("/v1/chat/completions", json=question())
    with nothing_leaks():
        async with gateway(tmp_path / "again", Fake()) as (_, client):
            await client.post("/v1/chat/completions", json=question(stream=True))


async def test_two_in_one_process(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path / "1", Fake(words=("one",))) as (_, first),
        gateway(tmp_path / "2", Fake(words=("two",))) as (_, second),
    ):
        for client, word in ((first, "one"), (second, "two")):
            answer = (await client.post("/v1/chat/completions", json=question())).json()
            assert answer["choices"][0]["message"]["content"] == word


async def test_a_taken_port_is_an_error_only_if_the_user_fixed_it(tmp_path: Path) -> None:
    async with gateway(tmp_path / "1") as (_, client):
        port = client.base_url.port
        async with make_kernel(tmp_path / "2", own={"port": port}) as other:
            with pytest.raises(ServiceFailed, match=str(port)):
                await other.start("ai-backend")
            assert other.service("ai-backend").runtime == "failed"


async def test_mounted_in_an_application(tmp_path: Path) -> None:
    async with make_kernel(tmp_path, Fake()) as kernel, create_app(kernel) as app:
        outer = Starlette(routes=[Mount("/ai", app=app)])
        transport = httpx.ASGITransport(app=outer)
        base = "http://localhost"
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            healthy = await client.get("/ai/healthy")
            chat = await client.post("/ai/v1/chat/completions", json=question())
            guarded = "/ai/api/kernel/services"
            refused = await client.get(guarded)
            allowed = await client.get(guarded, headers={"Authorization": f"Bearer {app.token}"})
        assert not (kernel.paths.runtime / "token").exists()
    assert healthy.json() == {"status": "ok", "version": "3.0.0"}
    assert chat.json()["choices"][0]["message"]["content"] == "abc"
    assert refused.status_code == 401
    assert [each["name"] for each in allowed.json()] == ["fake", "ai-backend"]


class Contributed:
    """A plugin that brings routes."""

    @hookimpl
    def register_routes(self) -> list[Any]:
        return [
            Route("/api/downloadModel", self.download, methods=["POST"]),
            Route("/api/parrot/{word}", say, methods=["GET"]),
        ]

    async def download(self, request: Request) -> JSONResponse:
        return JSONResponse({"got": await request.json()})


async def say(request: Request) -> JSONResponse:
    kernel = request.scope["aiplayground.kernel"]
    names = [each.name for each in kernel.services()]
    return JSONResponse({"said": request.path_params["word"], "services": names})


say.aiplayground_open = True  # type: ignore[attr-defined]  # how a route says that it needs no token


async def test_routes_of_plugins_are_mounted_and_guarded(tmp_path: Path) -> None:
    async with gateway(tmp_path, Contributed(), Fake()) as (kernel, client):
        said = await client.get("/api/parrot/hello")
        refused = await client.post("/api/downloadModel", json={})
        taken = await client.post("/api/downloadModel", json={"a": 1}, headers=token(kernel))
        foreign = await client.get("/api/parrot/x", headers={"Origin": "https://evil.example"})
    assert said.json() == {"said": "hello", "services": ["fake", "ai-backend"]}
    assert said.headers["x-request-id"]
    assert refused.status_code == 401
    assert taken.json() == {"got": {"a": 1}}
    assert foreign.status_code == 403
