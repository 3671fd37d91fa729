"""The APIs that are translations over the chat path: OpenAI's Responses, Anthropic's Messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from aiplayground.errors import ServiceNotAvailable
from aiplayground.serving.wire import parse_object

from . import messages_request, responses_request
from .delivery import event
from .errors import body_of
from .messages_events import MessageBuilder
from .responses_events import ResponseBuilder

if TYPE_CHECKING:
    from aiplayground.errors import AIPlaygroundError
    from aiplayground.types import ChatChunk, Usage

    from .dispatch import Dispatch
    from .exchange import Exchange


class Builder(Protocol):
    """What turns chunks into the events of a dialect."""

    def begin(self) -> Iterable[dict[str, Any]]:
        """Return the first events."""

    def add(self, chunk: ChatChunk) -> Iterable[dict[str, Any]]:
        """Return the events of a chunk."""

    def end(self) -> Iterable[dict[str, Any]]:
        """Return the last events."""


async def serve_responses(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/responses`."""
    fields = parse_object(await exchange.body())
    chat = responses_request.to_chat(fields)
    told: list[ResponseBuilder] = []

    def tell(error: AIPlaygroundError) -> bytes:
        body = told[0].error(str(int(error.code)), error.message)
        return event(body | {"details": error.details}, "error")

    delivery = dispatch.delivery(exchange, tell)
    turn = await dispatch.chat(exchange, chat, delivery.on_wait)
    builder = ResponseBuilder(fields, turn.model.name)
    told.append(builder)
    if turn.call.stream:
        await delivery.run(_events(turn.chunks, builder))
        return
    with exchange.there():
        await _build(turn.chunks, builder)
    ending = list(builder.end())
    await exchange.reply_json(200, ending[-1]["response"])


async def serve_messages(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/messages`."""
    fields = parse_object(await exchange.body())
    chat = await _to_chat(dispatch, exchange, fields)
    delivery = dispatch.delivery(exchange, _anthropic_error)
    turn = await dispatch.chat(exchange, chat, delivery.on_wait)
    builder = MessageBuilder(turn.model.name)
    if turn.call.stream:
        await delivery.run(_events(turn.chunks, builder))
        return
    with exchange.there():
        await _build(turn.chunks, builder)
    await exchange.reply_json(200, builder.message())


async def count_tokens(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/messages/count_tokens`: exact, because the model reads the prompt for it."""
    fields = parse_object(await exchange.body())
    chat = await _to_chat(dispatch, exchange, {**fields, "max_tokens": 1, "stream": False})
    turn = await dispatch.chat(exchange, chat)
    with exchange.there():
        usage = await _usage(turn.chunks)
    if usage is None:
        raise ServiceNotAvailable(
            f"{turn.model.service} does not tell how many tokens a prompt has.",
            details={"service": turn.model.service},
        )
    await exchange.reply_json(200, {"input_tokens": usage.prompt_tokens})


async def _to_chat(
    dispatch: Dispatch, exchange: Exchange, fields: dict[str, Any]
) -> dict[str, Any]:
    model = await dispatch.find(exchange, fields)
    parameters = dispatch.kernel.backend(model.service).parameters
    return messages_request.to_chat(fields, parameters)


async def _events(
    chunks: AsyncGenerator[ChatChunk, None], builder: Builder
) -> AsyncGenerator[bytes, None]:
    """Yield what the builder makes of the chunks; nothing is sent before the first of them."""
    begun = False
    async with aclosing(chunks):
        async for chunk in chunks:
            opening = () if begun else builder.begin()
            begun = True
            if data := _written([*opening, *builder.add(chunk)]):
                yield data
    yield _written([*(() if begun else builder.begin()), *builder.end()])


async def _build(chunks: AsyncGenerator[ChatChunk, None], builder: Builder) -> None:
    async with aclosing(chunks):
        async for chunk in chunks:
            builder.add(chunk)


async def _usage(chunks: AsyncGenerator[ChatChunk, None]) -> Usage | None:
    usage = None
    async with aclosing(chunks):
        async for chunk in chunks:
            usage = chunk.usage or usage
    return usage


def _written(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(event(each, each["type"]) for each in events)


def _anthropic_error(error: AIPlaygroundError) -> bytes:
    return event(body_of(error, "anthropic"), "error")
