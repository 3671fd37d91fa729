"""Every endpoint of the gateway, in one table: routing and the OpenAPI document come from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from . import catalogue, dialects, documented, ipc, media, schemas
from .access import Access
from .control import tail_of
from .dispatch import CHAT, COMPLETION, EMBEDDING, Kind
from .table import Endpoint

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

EVENTS = "text/event-stream"


def endpoints(gateway: Gateway) -> list[Endpoint]:
    """Return the endpoints of a gateway."""
    return [
        *_documented(gateway),
        *_openai(gateway),
        *_media(gateway),
        *_control(gateway),
        *_about(gateway),
        *ipc.endpoints(gateway.kernel),
    ]


def _documented(gateway: Gateway) -> Iterator[Endpoint]:
    yield Endpoint(
        method="GET", path="/healthy", handler=documented.healthy, summary="Is it there?"
    )
    yield Endpoint(
        method="POST",
        path="/api/checkModelAlreadyLoaded",
        handler=partial(documented.check_model_loaded, gateway.kernel),
        summary="Is a model in memory, and where does its file lie?",
        body=schemas.CHECK_MODEL,
    )


def _openai(gateway: Gateway) -> Iterator[Endpoint]:
    yield Endpoint(
        method="GET",
        path="/v1/models",
        handler=partial(catalogue.list_models, gateway.kernel),
        summary="List the models of every backend.",
        dialect="openai",
    )
    yield Endpoint(
        method="GET",
        path="/v1/models/{name:path}",
        handler=partial(catalogue.show_model, gateway.kernel),
        summary="Show one model.",
        dialect="openai",
    )
    kinds: list[tuple[Kind, str, dict[str, Any]]] = [
        (CHAT, "Answer a conversation.", schemas.CHAT),
        (COMPLETION, "Continue a text.", schemas.COMPLETION),
        (EMBEDDING, "Turn texts into vectors.", schemas.EMBEDDINGS),
    ]
    for kind, summary, body in kinds:
        yield Endpoint(
            method="POST",
            path=kind.path,
            handler=partial(gateway.dispatch.serve, kind=kind),
            summary=summary,
            dialect="openai",
            body=body,
        )
    yield Endpoint(
        method="POST",
        path="/v1/responses",
        handler=partial(dialects.serve_responses, gateway.dispatch),
        summary="Answer, in the form of OpenAI's Responses API.",
        dialect="openai",
        body=schemas.RESPONSES,
    )
    yield Endpoint(
        method="POST",
        path="/v1/messages",
        handler=partial(dialects.serve_messages, gateway.dispatch),
        summary="Answer, in the form of Anthropic's API.",
        dialect="anthropic",
        body=schemas.MESSAGES,
    )
    yield Endpoint(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=partial(dialects.count_tokens, gateway.dispatch),
        summary="Count the tokens of a prompt.",
        dialect="anthropic",
        body=schemas.TOKENS,
    )


def _media(gateway: Gateway) -> Iterator[Endpoint]:
    for path, handler, summary, body in (
        ("/v1/images/generations", media.images, "Make pictures.", schemas.IMAGES),
        ("/v1/audio/speech", media.speech, "Speak a text.", schemas.SPEECH),
        ("/v1/audio/transcriptions", media.transcriptions, "Write down what is said.", None),
        ("/v1/rerank", media.rerank, "Order documents by a query.", schemas.RERANK),
    ):
        yield Endpoint(
            method="POST",
            path=path,
            handler=partial(handler, gateway.dispatch),
            summary=summary,
            dialect="openai",
            body=body,
        )


def _control(gateway: Gateway) -> Iterator[Endpoint]:
    control = gateway.control
    common: dict[str, Any] = {"access": Access.CONTROL}
    yield Endpoint(
        method="GET",
        path="/api/kernel/services",
        handler=control.services,
        summary="List the services.",
        **common,
    )
    for operation in ("start", "stop", "restart", "unload"):
        what = "a model of a service" if operation == "unload" else "a service"
        yield Endpoint(
            method="POST",
            path=f"/api/kernel/services/{{service}}/{operation}",
            handler=partial(control.act, operation=operation),
            summary=f"{operation.capitalize()} {what}.",
            body=schemas.ACT,
            **common,
        )
    yield Endpoint(
        method="GET",
        path="/api/kernel/services/{service}/log",
        handler=partial(_log, gateway),
        summary="The last lines of a log, and those that come.",
        answer=EVENTS,
        query=("tail", "follow"),
        **common,
    )
    yield Endpoint(
        method="GET",
        path="/api/kernel/events",
        handler=partial(_events, gateway),
        summary="A snapshot, then every event.",
        answer=EVENTS,
        **common,
    )
    yield Endpoint(
        method="POST",
        path="/api/kernel/link",
        handler=gateway.new_link,
        summary="A link that logs a browser in, once.",
        **common,
    )


def _about(gateway: Gateway) -> Iterator[Endpoint]:
    yield Endpoint(
        method="GET",
        path="/login",
        handler=gateway.log_in,
        summary="Log a browser in, with the code of a link.",
        query=("code",),
    )
    yield Endpoint(
        method="GET",
        path="/metrics",
        handler=gateway.show_metrics,
        summary="Figures in Prometheus's text format.",
        answer="text/plain",
    )
    yield Endpoint(
        method="GET",
        path="/openapi.json",
        handler=partial(_describe, gateway),
        summary="This document.",
    )


async def _log(gateway: Gateway, exchange: Exchange, service: str) -> None:
    tail, follow = tail_of(exchange)
    gateway.kernel.log(service)  # an unknown one is refused before anything is sent
    lines = gateway.control.log(service, tail, follow=follow)
    await gateway.dispatch.delivery(exchange).run(lines)


async def _events(gateway: Gateway, exchange: Exchange) -> None:
    await gateway.dispatch.delivery(exchange).run(gateway.control.events())


async def _describe(gateway: Gateway, exchange: Exchange) -> None:
    from .openapi import document

    await exchange.reply_json(200, document(gateway.table.endpoints))
