"""Requests on their way to a worker and back: bytes, errors, disconnects, many at once."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from plugins.ai_backend.tests.serving import (
    DONE,
    Attached,
    Call,
    data,
    gateway,
    question,
    token,
    worker,
)
from tests.fakes import Fake, eventually

from aiplayground.middleware import Middleware

CHAT = "/v1/chat/completions"


async def figure(client: httpx.AsyncClient, line: str) -> None:
    """Wait until the metrics have a line."""
    async with asyncio.timeout(10):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def test_bytes_pass_as_they_are_also_those_that_nobody_expects(tmp_path: Path) -> None:
    seen: list[bytes] = []
    odd = [
        b'data: {"choices":  [ ]}\r\n\r\n',
        b": a remark\n\n",
        "data: \u2028é\n\n".encode(),
        DONE,
    ]

    async def respond(call: Call) -> None:
        seen.append(call.body)
        await call.events(*odd)

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        body = json.dumps(question(stream=True), indent=3)
        answer = await client.post(CHAT, content=body)
    assert answer.status_code == 200
    assert answer.content == b"".join(odd)
    assert seen == [body.encode()]


async def test_only_another_name_of_the_model_changes_the_body(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    async def respond(call: Call) -> None:
        seen.append(call.fields)
        await call.json({"usage": {"prompt_tokens": 2, "completion_tokens": 3}})

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        for name in ("attached/m", "ai-backend/m", "ai-backend/attached/m"):
            await client.post(CHAT, json=question(name, unheard_of=[1]))
        figures = (await client.get("/metrics")).text
    assert seen == [question("m", unheard_of=[1])] * 3
    assert 'tokens_total{backend="attached",model="m",kind="completion"} 9' in figures


COMMENT = b': {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}\n\n'
TIMINGS = b'data: {"choices": [], "timings": {"prompt_n": 2, "cache_n": 3, "predicted_n": 7}}\n\n'


@pytest.mark.parametrize("told", [COMMENT, TIMINGS])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_tokens_of_a_stream_are_counted_although_nobody_asked(
    tmp_path: Path, told: bytes, pieces: int
) -> None:
    whole = data("a") + told + DONE
    size = -(-len(whole) // pieces)

    async def respond(call: Call) -> None:
        assert "stream_options" not in call.fields
        await call.events(*(whole[at : at + size] for at in range(0, len(whole), size)))

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (kernel, client):
        answer = await client.post(CHAT, json=question(stream=True))
        await figure(client, 'tokens_total{backend="attached",model="m",kind="prompt"} 5')
        await figure(client, 'tokens_total{backend="attached",model="m",kind="completion"} 7')
        log = [
            json.loads(line.text) for line in kernel.log("ai-backend").tail() if "ms" in line.text
        ]
    assert answer.content == whole
    [line] = [each for each in log if each["path"] == CHAT]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (5, 7)


async def test_a_stream_that_tells_no_tokens_is_counted_as_such(tmp_path: Path) -> None:
    async def respond(call: Call) -> None:
        await call.events(data('"usage" and "timings"'), b'data: {"usage": null}\n\n', DONE)

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        await client.post(CHAT, json=question(stream=True))
        await figure(client, 'streams_untold_total{backend="attached",model="m"} 1')
        assert "tokens_total{" not in (await client.get("/metrics")).text


async def test_of_a_stream_that_broke_off_what_was_sent_is_counted(tmp_path: Path) -> None:
    async def respond(call: Call) -> None:
        await call.head(200, "text/event-stream")
        await call.piece(data("", role="assistant"))
        await call.piece(data("a") + data("b"))
        await call.piece(data("c"))
        while (await call.receive())["type"] != "http.disconnect":
            pass

    fake = Fake(models=("own",))  # says three words
    fake.answering = asyncio.Event()
    async with worker(respond) as url, gateway(tmp_path, Attached(url), fake) as (_, client):
        for service, model in (("attached", "m"), ("fake", "own")):
            async with client.stream("POST", CHAT, json=question(model, stream=True)) as answer:
                text = ""
                async for piece in answer.aiter_text():
                    text += piece
                    if text.count('"content":') >= (4 if service == "attached" else 3):
                        break
            labels = f'backend="{service}",model="{model}"'
            await figure(client, f"answers_cut_total{{{labels}}} 1")
            await figure(client, f'tokens_total{{{labels},kind="completion"}} 3')
            await figure(client, f'tokens_total{{{labels},kind="prompt"}} 0')


async def test_each_piece_is_sent_when_it_comes(tmp_path: Path) -> None:
    step = asyncio.Event()

    async def respond(call: Call) -> None:
        await call.head(200, "text/event-stream")
        for number in range(3):
            await call.piece(data(str(number)))
            await step.wait()
            step.clear()
        await call.piece(DONE, last=True)

    async with (
        worker(respond) as url,
        gateway(tmp_path, Attached(url)) as (_, client),
        client.stream("POST", CHAT, json=question(stream=True)) as answer,
    ):
        pieces = answer.aiter_bytes()
        for number in range(3):
            # The worker sends no more before this one is here.
            assert await anext(pieces) == data(str(number))
            step.set()
        assert [each async for each in pieces] == [DONE]


async def test_refusals_get_the_documented_shape_whoever_wrote_the_worker(tmp_path: Path) -> None:
    refusals: dict[str, tuple[int, Any]] = {
        "ours": (400, {"code": -4, "message": "no", "details": {"field": "x"}}),
        "theirs": (429, {"error": {"message": "slow down", "type": "rate"}}),
        "plain": (404, {"error": "gone"}),
        "broken": (500, {"nothing": "said"}),
    }

    async def respond(call: Call) -> None:
        status, body = refusals[call.fields["case"]]
        await call.json(body, status)

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        answers = {}
        for case in refusals:
            for stream in (False, True):
                answer = await client.post(CHAT, json=question(case=case, stream=stream))
                answers[case] = answer
                body = answer.json()
                assert set(body) == {"code", "message", "details", "error"}
                assert body["error"]["message"] == body["message"]
    assert answers["ours"].status_code == 400
    assert answers["ours"].json()["details"] == {"field": "x"}
    assert answers["theirs"].json()["message"] == "slow down"
    assert answers["plain"].status_code == 404
    assert answers["broken"].status_code == 500


async def test_a_client_that_goes_away_stops_the_worker(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def respond(call: Call) -> None:
        if call.fields.get("stream"):
            await call.head(200, "text/event-stream")
            await call.piece(data("a"))
        while (await call.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (kernel, client):
        for stream in (True, False):
            asked = client.build_request("POST", CHAT, json=question(stream=stream))
            task = asyncio.create_task(client.send(asked, stream=True))
            if stream:
                answer = await task
                await anext(answer.aiter_bytes())
                await answer.aclose()
            else:
                await eventually(lambda: kernel.service("attached").models)
                await asyncio.sleep(0.1)
                task.cancel()
            async with asyncio.timeout(10):
                await gone.wait()
            gone.clear()
        await eventually(lambda: not len(kernel._services["attached"].streams))


async def test_a_connection_that_was_kept_too_long_is_tried_again(tmp_path: Path) -> None:
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read(1)  # the next request has begun: now the connection is dropped
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with server, gateway(tmp_path, Attached(url)) as (_, client):
        for _ in range(3):
            assert (await client.post(CHAT, json=question())).status_code == 200
    assert accepted == 3


async def test_an_answer_that_breaks_off_ends_with_an_error_and_no_done(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        chunked = b"chunked" in body
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        cut = data("half")[:-9]
        if chunked:
            writer.write(b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(cut), cut))
        else:
            writer.write(b"connection: close\r\n\r\n" + cut)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, gateway(tmp_path, Attached(url)) as (_, client):
        for kind in ("chunked", "closed"):
            answer = await client.post(CHAT, json=question(stream=True, kind=kind))
            assert answer.status_code == 200
            *_, last = answer.text.rstrip("\n").split("\n\n")
            told = json.loads(last.removeprefix("data: "))
            assert told["code"] == -3
            assert told["error"]["message"] == told["message"]
            assert "[DONE]" not in answer.text


async def test_stopping_a_backend_ends_its_streams_with_an_error(tmp_path: Path) -> None:
    async def respond(call: Call) -> None:
        await call.head(200, "text/event-stream")
        await call.piece(data("a"))
        while (await call.receive())["type"] != "http.disconnect":
            pass

    async with (
        worker(respond) as url,
        gateway(tmp_path, Attached(url)) as (kernel, client),
        client.stream("POST", CHAT, json=question(stream=True)) as answer,
    ):
        pieces = answer.aiter_bytes()
        await anext(pieces)
        stopping = asyncio.create_task(kernel.stop("attached"))
        rest = b"".join([each async for each in pieces])
        await stopping
    assert json.loads(rest.removeprefix(b"data: "))["message"].startswith("attached was stopped")


async def test_a_model_in_use_is_not_evicted_under_a_stream(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def respond(call: Call) -> None:
        await call.head(200, "text/event-stream")
        await call.piece(data("a"))
        await go.wait()
        await call.piece(DONE, last=True)

    async with worker(respond) as url:
        backend = Attached(url, models=("m", "n"))
        async with gateway(tmp_path, backend) as (kernel, client):
            async with client.stream("POST", CHAT, json=question(stream=True)) as answer:
                pieces = answer.aiter_bytes()
                await anext(pieces)
                assert kernel._services["attached"].ops.residency.busy("m") == 1
                go.set()
                assert [each async for each in pieces] == [DONE]
            await eventually(lambda: not kernel._services["attached"].ops.residency.busy("m"))


async def test_middleware_sees_requests_so_nothing_passes_it_by(tmp_path: Path) -> None:
    class Shout(Middleware):
        def chunk(self, call: Any, item: Any) -> Any:
            return item.model_copy(update={"text": item.text.upper()})

    class Plugin:
        from aiplayground.hookspecs import hookimpl

        @hookimpl
        def register_middleware(self) -> list[Any]:
            return [Shout()]

    async def respond(call: Call) -> None:
        await call.events(data("quiet"), data("", finish_reason="stop"), DONE)

    async with worker(respond) as url, gateway(tmp_path, Attached(url), Plugin()) as (_, client):
        answer = (await client.post(CHAT, json=question())).json()
        streamed = await client.post(CHAT, json=question(stream=True))
    assert answer["choices"][0]["message"]["content"] == "QUIET"
    assert "QUIET" in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")


async def test_backends_of_hooks_alone_speak_every_dialect(tmp_path: Path) -> None:
    fake = Fake(words=("a", "b"))
    async with gateway(tmp_path, fake) as (_, client):
        chat = (await client.post(CHAT, json=question())).json()
        responses = (await client.post("/v1/responses", json={"model": "m", "input": "x"})).json()
        body = question(max_tokens=5)
        refused = await client.post("/v1/messages", json=body)
        completion = await client.post("/v1/completions", json={"model": "m", "prompt": "x"})
    assert chat["choices"][0]["message"]["content"] == "ab"
    assert responses["output"][0]["content"][0]["text"] == "ab"
    # It declares no parameters: what it cannot honour is refused, and not ignored.
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert completion.json()["details"]["capability"] == "completion"


async def test_heartbeats_fill_a_silence_and_say_the_place_in_the_queue(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def respond(call: Call) -> None:
        await go.wait()
        await call.events(data("a"), DONE)

    own = {"heartbeat": 0.05, "active": 1}
    async with worker(respond) as url, gateway(tmp_path, Attached(url), own=own) as (_, client):
        first = asyncio.create_task(client.post(CHAT, json=question(stream=True)))
        await figure(client, 'queue_active{backend="attached"} 1')
        async with client.stream("POST", CHAT, json=question(stream=True)) as second:
            lines = second.aiter_lines()
            while (line := await anext(lines)) != ": position 1":
                assert line in ("", ": waiting")
            go.set()
            rest = [line async for line in lines]
        text = (await first).text
    assert ": waiting\n\n" in text
    assert text.endswith("data: [DONE]\n\n")
    assert "data: [DONE]" in rest


async def test_a_full_queue_answers_429_and_empties_when_clients_go(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def respond(call: Call) -> None:
        await go.wait()
        await call.json({})

    own = {"active": 1, "waiting": 1}
    async with worker(respond) as url, gateway(tmp_path, Attached(url), own=own) as (_, client):
        one = asyncio.create_task(client.post(CHAT, json=question()))
        await figure(client, 'queue_active{backend="attached"} 1')
        two = asyncio.create_task(client.post(CHAT, json=question()))
        await figure(client, 'queue_waiting{backend="attached"} 1')
        refused = await client.post(CHAT, json=question())
        assert refused.status_code == 429
        assert refused.json()["code"] == -3
        assert int(refused.headers["retry-after"]) >= 1
        two.cancel()
        await figure(client, 'queue_waiting{backend="attached"} 0')
        three = asyncio.create_task(client.post(CHAT, json=question()))
        await figure(client, 'queue_waiting{backend="attached"} 1')
        go.set()
        assert (await one).status_code == (await three).status_code == 200


async def many_streams(home: Path, count: int) -> None:
    """Run streams at the same time; each must come back whole and in order."""
    pieces = 20

    async def respond(call: Call) -> None:
        number = call.fields["number"]
        await call.head(200, "text/event-stream")
        for step in range(pieces):
            await asyncio.sleep(random.random() / 100)
            await call.piece(data(f"{number}:{step} "))
        await call.piece(DONE, last=True)

    async with worker(respond) as url, gateway(home, Attached(url)) as (kernel, client):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many:

            async def stream(number: int) -> None:
                body = question(stream=True, number=number)
                async with many.post(f"{client.base_url}{CHAT}", json=body) as answer:
                    content = await answer.read()
                expected = [data(f"{number}:{step} ") for step in range(pieces)]
                assert content == b"".join([*expected, DONE])

            await asyncio.gather(*(stream(number) for number in range(count)))
        assert 'queue_active{backend="attached"} 0' in (await client.get("/metrics")).text
        assert kernel._services["attached"].ops.residency.busy("m") == 0


async def test_two_hundred_streams_at_once(tmp_path: Path) -> None:
    await many_streams(tmp_path, 200)


@pytest.mark.full
async def test_a_thousand_streams_at_once(tmp_path: Path) -> None:
    await many_streams(tmp_path, 1000)


async def test_the_trace_goes_along(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    async def respond(call: Call) -> None:
        seen.append(call.headers)
        await call.json({})

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (kernel, client):
        headers = {"traceparent": parent, "tracestate": "a=b", "x-request-id": "mine"}
        answer = await client.post(CHAT, json=question(), headers=headers | token(kernel))
        await client.post(CHAT, json=question(), headers={"traceparent": "no", "tracestate": "a"})
    assert answer.headers["x-request-id"] == "mine"
    assert seen[0]["traceparent"] == parent
    assert seen[0]["tracestate"] == "a=b"
    assert "authorization" not in seen[0]
    assert "traceparent" not in seen[1]
    assert "tracestate" not in seen[1]


async def test_backends_start_on_demand_unless_that_is_not_wanted(tmp_path: Path) -> None:
    async def respond(call: Call) -> None:
        await call.json({})

    own = {"start_on_demand": False}
    async with (
        worker(respond) as url,
        gateway(tmp_path, Attached(url), own=own) as (kernel, client),
    ):
        refused = await client.post(CHAT, json=question())
        assert refused.status_code == 503
        assert "aipg start attached" in refused.json()["message"]
        headers = token(kernel)
        started = await client.post("/api/kernel/services/attached/start", headers=headers)
        assert started.json()["currentStatus"] == "Running"
        assert (await client.post(CHAT, json=question())).status_code == 200


async def test_a_name_that_two_backends_have_is_told_apart(tmp_path: Path) -> None:
    one, two = Fake("one", words=("1",)), Fake("two", words=("2",))
    async with gateway(tmp_path, one, two) as (_, client):
        names = [each["id"] for each in (await client.get("/v1/models")).json()["data"]]
        refused = await client.post(CHAT, json=question())
        answer = (await client.post(CHAT, json=question("two/m"))).json()
        shown = await client.get("/v1/models/one/m")
    assert names == ["one/m", "two/m"]
    assert refused.status_code == 400
    assert refused.json()["details"]["choices"] == ["one/m", "two/m"]
    assert answer["choices"][0]["message"]["content"] == "2"
    assert shown.json()["owned_by"] == "one"
