"""The application around an engine, with an engine that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiplayground.errors import InvalidModelFile, InvalidParameters, ServiceNotAvailable
from aiplayground.serving import sse
from aiplayground.serving.app import App
from aiplayground.serving.engine import LoadedModel, Progress
from aiplayground.serving.host import Host
from aiplayground.types import ChatChunk, ChatRequest, CompletionRequest, Usage

TOKEN = "secret"
END = ChatChunk(finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=2))
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
Script = Callable[[], AsyncGenerator[ChatChunk, None]]


class FakeEngine:
    """Loads any file but `bad`, and answers with its script."""

    parameters = frozenset({"max_tokens"})

    def __init__(self, script: Script) -> None:
        self.script = script
        self.loaded: LoadedModel | None = None
        self.active = 0
        self.loads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self) -> None:
        await self.gate.wait()

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        on_progress(0.5)
        self.loads.append(name)
        await self.gate.wait()
        if path.name == "bad":
            raise InvalidModelFile("bad is damaged.")
        self.loaded = LoadedModel(name=name, path=path, context_length=9)
        return self.loaded

    async def unload(self) -> None:
        self.loaded = None

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        return self._run()

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        return self._run()

    async def close(self) -> None:
        await self.unload()

    async def _run(self) -> AsyncGenerator[ChatChunk, None]:
        self.active += 1
        try:
            async for chunk in self.script():
                yield chunk
        finally:
            self.active -= 1


async def two_words() -> AsyncGenerator[ChatChunk, None]:
    yield ChatChunk(text="one ")
    yield ChatChunk(text="two")
    yield END


async def forever() -> AsyncGenerator[ChatChunk, None]:
    yield ChatChunk(text="one")
    await asyncio.Event().wait()


async def silence() -> AsyncGenerator[ChatChunk, None]:
    await asyncio.Event().wait()
    yield END


def failing(error: Exception, after: str = "") -> Script:
    async def script() -> AsyncGenerator[ChatChunk, None]:
        if after:
            yield ChatChunk(text=after)
        raise error
        yield END

    return script


@asynccontextmanager
async def serving(script: Script = two_words) -> AsyncIterator[tuple[Host, httpx.AsyncClient]]:
    lines: list[str] = []
    host = Host(FakeEngine(script), lines.append)
    await host.launch(Path("model"), "m")
    transport = httpx.ASGITransport(app=App(host, TOKEN))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield host, client


async def test_a_whole_answer() -> None:
    async with serving() as (_, client):
        answer = (await client.post("/v1/chat/completions", json=BODY)).json()
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def test_a_streamed_answer() -> None:
    async with serving() as (_, client):
        body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
        text = (await client.post("/v1/chat/completions", json=body)).text
        plain = (await client.post("/v1/completions", json={"model": "m", "prompt": "x"})).json()
    events = text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2][6:])["usage"]["total_tokens"] == 3
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events[:-2]]
    assert [delta.get("content") for delta in deltas] == ["", "one ", "two", None]
    assert plain["choices"][0]["text"] == "one two"


async def test_who_asks_for_no_usage_gets_it_as_a_comment_alone() -> None:
    async with serving() as (_, client):
        text = (await client.post("/v1/chat/completions", json={**BODY, "stream": True})).text
    events = text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert events[-2].startswith(": ")
    assert json.loads(events[-2][2:]) == {"usage": counts}
    assert not any("usage" in event for event in events[:-2])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_chunk_has_its_own_status(stream: bool) -> None:
    async with serving(failing(InvalidParameters("too long"))) as (host, client):
        answer = await client.post("/v1/chat/completions", json={**BODY, "stream": stream})
        assert host.engine.active == 0
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "too long")


async def test_an_error_in_the_middle_is_the_last_event() -> None:
    async with serving(failing(ServiceNotAvailable("gone"), after="one")) as (_, client):
        answer = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
    last = json.loads(answer.text.strip().rsplit("data: ", 1)[1])
    assert (answer.status_code, last["code"], last["error"]["message"]) == (200, -3, "gone")
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("after", ["", "one"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_defect_of_the_engine_is_told_without_its_inside(
    capsys: pytest.CaptureFixture[str], after: str, stream: bool
) -> None:
    async with serving(failing(RuntimeError("inside"), after)) as (_, client):
        answer = await client.post("/v1/chat/completions", json={**BODY, "stream": stream})
    assert '"code":-1' in answer.text
    assert "inside" not in answer.text
    assert "inside" in capsys.readouterr().err
    assert answer.status_code == (200 if after and stream else 500)


async def exchange(
    host: Host, body: dict[str, Any], leave: asyncio.Event, path: str = "/v1/chat/completions"
) -> list[dict[str, Any]]:
    """Send a request whose client goes away when `leave` is set; return what was sent to it."""
    inbox = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if inbox:
            return inbox.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer secret")]
    scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
    await App(host, TOKEN)(scope, receive, send)
    return sent


@pytest.mark.parametrize("script", [forever, silence])
@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_client_goes_the_engine_stops(script: Script, stream: bool) -> None:
    async with serving(script) as (host, _):
        leave = asyncio.Event()
        request = asyncio.ensure_future(exchange(host, {**BODY, "stream": stream}, leave))
        async with asyncio.timeout(20):
            while host.engine.active == 0:
                await asyncio.sleep(0)
            leave.set()
            sent = await request
        assert host.engine.active == 0
        assert not any(b"[DONE]" in message.get("body", b"") for message in sent)


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse.EventStream.__init__, "__kwdefaults__", {"heartbeat": 0.01})
    ready = asyncio.Event()

    async def late() -> AsyncGenerator[ChatChunk, None]:
        await ready.wait()
        raise ServiceNotAvailable("gone")
        yield END

    async with serving(late) as (host, _):
        request = asyncio.ensure_future(exchange(host, {**BODY, "stream": True}, asyncio.Event()))
        await asyncio.sleep(0.1)
        ready.set()
        async with asyncio.timeout(20):
            sent = await request
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == sent[2]["body"] == b": waiting\n\n"
    assert b'"code":-3' in sent[-2]["body"]


async def test_health_while_it_comes_up() -> None:
    engine = FakeEngine(two_words)
    engine.gate.clear()
    lines: list[str] = []
    host = Host(engine, lines.append)
    launch = asyncio.ensure_future(host.launch(Path("model"), "m"))
    await asyncio.sleep(0)
    assert host.health()[0] == 503
    with pytest.raises(ServiceNotAvailable, match="being loaded"):
        host.check_model("m")
    engine.gate.set()
    await launch
    status, body = host.health()
    assert (status, body["model"], body["status"]) == (200, "m", "ok")
    assert lines == ["loading m: 50%"]


async def test_a_worker_that_loads_later_stays_healthy() -> None:
    async with serving() as (host, client):
        engine = host.engine
        assert isinstance(engine, FakeEngine)
        engine.gate.clear()
        load = asyncio.ensure_future(host.load(Path("other"), "other"))
        await asyncio.sleep(0)
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["loading"]) == (200, "other")
        assert answer.json()["progress"] == 0.5
        engine.gate.set()
        await load


async def control(client: httpx.AsyncClient, verb: str, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return await client.post(f"/models/{verb}", json=fields, headers=headers)


async def test_loading_is_asked_for_once_and_fails_with_its_cause() -> None:
    async with serving() as (host, client):
        again = await control(client, "load", path="model", name="m")
        assert again.json() == {"model": "m", "context_length": 9}
        assert host.engine.loads == ["m"]  # type: ignore[attr-defined]  # of the fake engine
        bad = await control(client, "load", path="bad", name="bad")
        assert (bad.status_code, bad.json()["message"]) == (500, "bad is damaged.")
        for fields in ({}, {"path": 5, "name": "x"}, {"path": "x", "name": ""}):
            assert (await control(client, "load", **fields)).status_code == 400
        assert (await control(client, "unload")).json() == {"model": None}
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 503


async def test_a_load_whose_client_goes_is_abandoned() -> None:
    async with serving() as (host, _):
        engine = host.engine
        assert isinstance(engine, FakeEngine)
        engine.gate.clear()
        leave = asyncio.Event()
        body = {"path": "other", "name": "other"}
        request = asyncio.ensure_future(exchange(host, body, leave, "/models/load"))
        async with asyncio.timeout(20):
            while "other" not in engine.loads:
                await asyncio.sleep(0)
            leave.set()
            assert await request == []
        assert engine.loaded is not None
        assert engine.loaded.name == "m"
