"""A span of OpenTelemetry for each request, where somebody wants them.

Off, and nothing of OpenTelemetry imported, unless the program that the kernel runs in has set a
tracer provider, or the standard variables say where spans go (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_EXPORTER=otlp`, ...). Needs the extra `telemetry` then. Nothing global is set.

Attributes are those of OpenTelemetry's semantic conventions for HTTP servers and for generative AI;
what was asked and answered is in none.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aiplayground.tracing import traced

if TYPE_CHECKING:
    import logging

    from opentelemetry.sdk.trace import TracerProvider as OwnProvider
    from opentelemetry.trace import Span, TracerProvider

    from .exchange import Exchange

SCOPE = "aiplayground.gateway"
SERVICE = "aiplayground"

FLUSH = 5.0
"""Seconds that sending the last spans may take."""

PLACES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/images/generations": "generate_content",
    "/v1/audio/speech": "generate_content",
    "/v1/audio/transcriptions": "generate_content",
    "/v1/rerank": "rerank",
}
"""`gen_ai.operation.name` by route; the conventions have no name for ranking."""

SERVER_ERROR = 500


class Spans:
    """Makes the spans of one gateway; `own` is the provider to close with it."""

    def __init__(
        self,
        provider: TracerProvider,
        hide: Callable[[str], str],
        own: OwnProvider | None = None,
    ) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer(SCOPE)
        self._context = TraceContextTextMapPropagator()
        self._hide = hide
        self._own = own

    @contextmanager
    def span(self, exchange: Exchange) -> Iterator[None]:
        """Make a span of a request, and the parent of what workers do for it."""
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            exchange.method,
            context=self._context.extract(exchange.headers),
            kind=SpanKind.SERVER,
            record_exception=False,  # messages of errors may repeat what was asked
            set_status_on_exception=False,
        ) as span:
            trace: dict[str, str] = {}
            self._context.inject(trace)
            exchange.trace = trace
            try:
                with traced(trace):
                    yield
            finally:
                self._finish(span, exchange)

    def _finish(self, span: Span, exchange: Exchange) -> None:
        from opentelemetry.trace import StatusCode

        if not span.is_recording():
            return
        span.update_name(name_of(exchange))
        span.set_attributes({**attributes_of(exchange), "url.path": self._hide(exchange.path)})
        status = exchange.status or SERVER_ERROR
        interrupted = "error" in exchange.facts and status < 400
        if status >= SERVER_ERROR or interrupted:
            span.set_attribute("error.type", "interrupted" if interrupted else str(status))
            span.set_status(StatusCode.ERROR)

    async def aclose(self) -> None:
        """Send what has not been sent, for `FLUSH` seconds at most."""
        if self._own is None:
            return
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        own = self._own

        def close() -> None:
            own.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(closed.set)

        # A thread of its own: one that waits for the network keeps no program from ending.
        threading.Thread(target=close, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH):
                await closed.wait()
        except TimeoutError:
            pass  # nobody takes them: the exporter has logged why


def name_of(exchange: Exchange) -> str:
    """Return a span's name: operation and model, else method and route."""
    operation, model = OPERATIONS.get(exchange.route), exchange.facts.get("model")
    if operation and model:
        return f"{operation} {model}"
    return f"{exchange.method} {exchange.route}"


def attributes_of(exchange: Exchange) -> dict[str, Any]:
    """Return a span's attributes by the names of the semantic conventions; times in seconds."""
    facts = exchange.facts
    first = facts.get("first_ms")
    found = {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "gen_ai.operation.name": OPERATIONS.get(exchange.route),
        "gen_ai.provider.name": facts.get("backend"),
        "gen_ai.request.model": facts.get("model"),
        "gen_ai.usage.input_tokens": facts.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": facts.get("completion_tokens"),
        "gen_ai.response.time_to_first_chunk": None if first is None else first / 1000,
    }
    return {name: value for name, value in found.items() if value is not None}


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Say whether the standard variables ask for spans."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get(EXPORTER, "").strip()
    return exporter != "none" and bool(exporter or any(environ.get(name) for name in PLACES))


def load_sdk() -> None:
    """Import what spans need, if they are asked for: that is slow. Blocks."""
    if wanted() and _missing() is None:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401  # the import is the point


def spans_for(
    given: TracerProvider | None,
    logger: logging.Logger,
    hide: Callable[[str], str],
    environ: Mapping[str, str] = os.environ,
) -> Spans | None:
    """Return what makes spans: of the provider given, else the program's, else one of our own.

    None where nobody wants any, or where they cannot be made; the log then says why.
    """
    provider = given or _of_program()
    if provider is not None:
        return Spans(provider, hide)
    if not wanted(environ):
        return None
    problem = _unsupported(environ) or _missing()
    if problem is not None:
        logger.warning("OTEL_* asks for traces, but %s. None are sent.", problem)
        return None
    own = _own_provider(environ)
    return Spans(own, hide, own)


def _of_program() -> TracerProvider | None:
    """Return the provider that the program around us has set."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _own_provider(environ: Mapping[str, str]) -> OwnProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as OwnProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = environ.get("OTEL_SERVICE_NAME") or "service.name" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": SERVICE})
    own = OwnProvider(resource=resource, shutdown_on_exit=False)
    own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return own


def _unsupported(environ: Mapping[str, str]) -> str | None:
    exporter = environ.get(EXPORTER) or "otlp"
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), PROTOCOL)
    if exporter != "otlp":
        return f"{EXPORTER}={exporter} is not supported: use otlp"
    if protocol != PROTOCOL:
        return f"the protocol {protocol} is not supported: use {PROTOCOL}"
    return None


def _missing() -> str | None:
    for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter"):
        if find_spec(name) is None:
            return "OpenTelemetry is not installed (pip install 'aiplayground[telemetry]')"
    return None
