"""Traces: the client's goes along to each worker; OpenTelemetry gets a span of each request."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from plugins.ai_backend.tests.serving import (
    DONE,
    EVERYTHING,
    Attached,
    Call,
    data,
    gateway,
    make_kernel,
    question,
    worker,
)
from tests.fakes import Fake

import aiplayground_ai_backend.plugin as ai_backend
from aiplayground import Kernel, hookimpl
from aiplayground.middleware import Middleware
from aiplayground.specs import Capability
from aiplayground.tracing import current_trace, trace_of, traced
from aiplayground_ai_backend import create_app, spans

CHAT = "/v1/chat/completions"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = {"traceparent": PARENT, "tracestate": "a=b"}
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}\n\n'
COUNTS = {"prompt_tokens": 5, "completion_tokens": 7}
VECTOR = {"data": [{"embedding": [0.5]}], "usage": COUNTS}
RANKS = {"results": [{"index": 0, "relevance_score": 0.5}], "usage": COUNTS}


class Looking(Middleware):
    def chunk(self, call: Any, item: Any) -> Any:
        return item


class Watching:
    """Brings a middleware: with one, the kernel looks at each request instead of passing it on."""

    @hookimpl
    def register_middleware(self) -> list[Any]:
        return [Looking()]


async def answer(call: Call) -> None:
    """Answer as a worker that speaks the OpenAI API does."""
    path = call.scope["path"]
    if path == "/v1/embeddings":
        await call.json(VECTOR)
    elif path == "/v1/rerank":
        await call.json(RANKS)
    elif call.fields.get("stream"):
        piece = b'data: {"choices": [{"index": 0, "text": "a"}]}\n\n'
        first = data("a") if path == CHAT else piece
        await call.events(first, USAGE, DONE)
    else:
        await call.json({"choices": [], "usage": COUNTS})


def asked_for() -> dict[str, dict[str, Any]]:
    said = [{"role": "user", "content": "Hello"}]
    return {
        CHAT: question(),
        "/v1/completions": {"model": "m", "prompt": "Hello"},
        "/v1/embeddings": {"model": "m", "input": "Hello"},
        "/v1/rerank": {"model": "m", "query": "q", "documents": ["d"]},
        "/v1/responses": {"model": "m", "input": "Hello"},
        "/v1/messages": {"model": "m", "max_tokens": 5, "messages": said},
    }


@pytest.mark.parametrize("more", [{}, {"watching": Watching()}], ids=["passed", "looked-at"])
async def test_every_kind_of_request_takes_its_trace_to_the_worker(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    seen: list[dict[str, str]] = []

    async def respond(call: Call) -> None:
        seen.append(call.headers)
        await answer(call)

    everything = EVERYTHING | {Capability.RERANK}
    async with worker(respond) as url:
        known = frozenset({"max_tokens"})
        backend = Attached(url, capabilities=everything, parameters=known)
        async with gateway(tmp_path, backend, more=more) as (_, client):
            for path, body in asked_for().items():
                streams = (False, True) if path in (CHAT, "/v1/completions") else (False,)
                for stream in streams:
                    seen.clear()
                    body = body | ({"stream": True} if stream else {})
                    got = await client.post(path, json=body, headers=TRACE)
                    assert got.status_code == 200, (path, got.text)
                    assert [each["traceparent"] for each in seen] == [PARENT], path
                    assert seen[0]["tracestate"] == "a=b"
                    seen.clear()
                    await client.post(path, json=body)
                    assert [each.get("traceparent") for each in seen] == [None], path


async def test_a_server_that_already_runs_gets_it_too_and_its_watch_does_not(
    tmp_path: Path,
) -> None:
    seen: dict[str, list[str | None]] = {"GET": [], "POST": []}

    async def respond(call: Call) -> None:
        seen[call.scope["method"]].append(call.headers.get("traceparent"))
        if call.scope["path"] == "/v1/models":
            await call.json({"data": [{"id": "m"}]})
        else:
            await call.events(data("a"), USAGE, DONE)

    async with worker(respond) as url:
        settings = {"attach": {"far": {"url": url}}, "liveness": {"interval": 0.05}}
        plugins = {"ai-backend": ai_backend}
        async with (
            Kernel(home=tmp_path, plugins=plugins, discover=False, settings=settings) as kernel,
            create_app(kernel) as app,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://localhost"
            ) as client,
        ):
            got = await client.post(CHAT, json=question("far/m"), headers=TRACE)
            assert got.status_code == 200
            looks = len(seen["GET"])
            async with asyncio.timeout(10):
                while len(seen["GET"]) < looks + 3:
                    await asyncio.sleep(0.01)
    assert seen["POST"] == [PARENT]
    assert set(seen["GET"][looks:]) == {None}  # though that request is what started it


async def test_traces_of_requests_at_the_same_time_are_not_mixed_up(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    both = asyncio.Barrier(2)

    async def respond(call: Call) -> None:
        await both.wait()
        seen.append((call.fields["messages"][0]["content"], call.headers["traceparent"]))
        await answer(call)

    parents = {"1": PARENT, "2": PARENT.replace("0af7", "1111")}

    async def ask(client: httpx.AsyncClient, name: str) -> None:
        body = {"model": "m", "input": name}
        await client.post("/v1/responses", json=body, headers={"traceparent": parents[name]})

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        await asyncio.gather(ask(client, "1"), ask(client, "2"))
    assert dict(seen) == parents


def test_what_is_no_trace_is_none() -> None:
    for headers in ({}, {"tracestate": "a"}, {"traceparent": "00-zz", "tracestate": "a"}):
        assert trace_of(headers) == {}
    with traced(TRACE):
        assert current_trace() == TRACE
        with traced({}):
            assert current_trace() == {}
        assert current_trace() == TRACE
    assert current_trace() == {}


# OpenTelemetry --------------------------------------------------------------------------------


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    made.shutdown()


@pytest.fixture
def of_program(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program around the gateway have set a provider."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)


async def finished(exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    """Wait for spans: the last byte is out before its request is noted."""
    async with asyncio.timeout(10):
        while len(exporter.get_finished_spans()) < count:
            await asyncio.sleep(0.01)
    return list(exporter.get_finished_spans())


def hexadecimal(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


@pytest.mark.usefixtures("of_program")
async def test_a_request_is_a_span_between_client_and_worker(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    seen: list[str] = []

    async def respond(call: Call) -> None:
        seen.append(call.headers["traceparent"])
        await answer(call)

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        await client.post(CHAT, json=question(stream=True), headers=TRACE)
        await client.post("/v1/responses", json={"model": "m", "input": "Hello"})
        first, second = await finished(exporter, 2)
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}-{first.parent.span_id:016x}" == PARENT[3:-3]
    assert second.parent is None
    for span, parent in zip((first, second), seen, strict=True):
        assert "-".join(hexadecimal(span)) == parent[3:-3]
    assert first.name == "chat m"
    assert first.kind is SpanKind.SERVER
    found = dict(first.attributes or {})
    assert 0 <= float(str(found.pop("gen_ai.response.time_to_first_chunk"))) < 60
    assert found == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "url.path": CHAT,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "attached",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
    }
    assert second.attributes is not None
    assert second.attributes["http.route"] == "/v1/responses"
    assert second.attributes["gen_ai.usage.output_tokens"] == 7


@pytest.mark.usefixtures("of_program")
async def test_what_went_wrong_is_in_the_span_and_what_was_asked_is_not(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def respond(call: Call) -> None:
        await call.json({"message": "Hello is what you asked"}, 500)

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        await client.post(CHAT, json=question())
        await client.get("/nothing")
        await client.get("/v1/models")
        failed, missing, listed = await finished(exporter, 3)
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == str(failed.attributes["http.response.status_code"])
    assert failed.events == ()
    assert failed.status.description is None
    assert "Hello" not in str(dict(failed.attributes))
    # A client's mistake is no failure of the server.
    assert (missing.name, missing.status.status_code) == ("GET other", StatusCode.UNSET)
    assert (listed.name, listed.status.status_code) == ("GET /v1/models", StatusCode.UNSET)


@pytest.mark.usefixtures("of_program")
async def test_a_stream_that_broke_off_is_a_span_that_failed(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    async def respond(call: Call) -> None:
        await call.head(200, "text/event-stream")
        await call.piece(data("a"))
        raise ConnectionError("gone")

    async with worker(respond) as url, gateway(tmp_path, Attached(url)) as (_, client):
        got = await client.post(CHAT, json=question(stream=True))
        [span] = await finished(exporter, 1)
    assert got.status_code == 200
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "interrupted"


async def test_an_embedder_hands_its_provider_over(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    async with make_kernel(tmp_path, Fake()) as kernel:
        async with create_app(kernel, tracer_provider=provider) as app:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as own:
                with trace.use_span(provider.get_tracer("theirs").start_span("around")) as around:
                    await own.get("/healthy")
        assert around.is_recording()  # and is not closed with the gateway
        around.end()
    assert [each.name for each in exporter.get_finished_spans()] == ["GET /healthy", "around"]


async def test_the_standard_variables_send_spans_to_a_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[ExportTraceServiceRequest] = []

    async def respond(call: Call) -> None:
        assert call.scope["path"] == "/v1/traces"
        received.append(ExportTraceServiceRequest.FromString(call.body))
        await call.head(200, "application/x-protobuf")
        await call.piece(b"", last=True)

    async with worker(respond) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        async with gateway(tmp_path, Fake()) as (_, client):
            assert (await client.post(CHAT, json=question())).status_code == 200
    found = {span.name for each in received for span in _spans(each)}
    assert "chat m" in found
    [name] = [
        each.value.string_value
        for each in received[0].resource_spans[0].resource.attributes
        if each.key == "service.name"
    ]
    assert name == "aiplayground"
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)  # nothing global


def _spans(request: ExportTraceServiceRequest) -> Iterator[Any]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            yield from scope.spans


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_spans_are_off_unless_asked_for(environ: dict[str, str], asked: bool) -> None:
    assert spans.wanted(environ) is asked


@pytest.mark.parametrize(
    ("environ", "there", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, True, "OTEL_TRACES_EXPORTER=zipkin is not supported"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            True,
            "the protocol grpc is not supported: use http/protobuf",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False, r"pip install 'aiplayground\[telemetry\]'"),
    ],
)
def test_what_cannot_be_sent_is_logged(
    environ: dict[str, str],
    there: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not there:
        monkeypatch.setattr(spans, "find_spec", lambda name: None)
    unchanged: Callable[[str], str] = str
    assert spans.spans_for(None, logging.getLogger("x"), unchanged, environ) is None
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(said, record.getMessage())


def test_nothing_of_opentelemetry_is_imported_unless_asked_for(tmp_path: Path) -> None:
    source = f"""
import asyncio, sys
from pathlib import Path
from aiplayground import Kernel
from aiplayground_ai_backend import create_app, plugin

async def main():
    plugins = {{"ai-backend": plugin}}
    async with Kernel(home=Path({str(tmp_path)!r}), plugins=plugins, discover=False) as kernel:
        async with create_app(kernel) as app:
            assert app.spans is None
        await kernel.start("ai-backend")

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
