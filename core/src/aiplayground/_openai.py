"""The kernel's default hooks for a backend whose worker speaks the OpenAI API.

Protocol: OpenAI's chat completions, completions, embeddings and models, with server-sent events
(https://platform.openai.com/docs/api-reference). Errors arrive as `{code, message, details}`, from
foreign servers as OpenAI's `error` object.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from .errors import (
    AIPlaygroundError,
    FailureClass,
    InvalidParameters,
    ModelNotFound,
    ServiceFailed,
    ServiceNotAvailable,
    from_dict,
)
from .serving.logprobs import from_text
from .specs import Health
from .types import ChatChunk, Embeddings, GenerateEvent, ModelInfo, Usage

if TYPE_CHECKING:
    from .context import ServiceContext
    from .types import (
        ChatRequest,
        CompletionRequest,
        EmbedRequest,
        GenerateRequest,
        RerankRequest,
    )

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to a worker on this machine; the kernel's deadlines bound the rest."""

T = TypeVar("T", ChatChunk, GenerateEvent)

_JSON = {"Content-Type": "application/json"}
_FINISH = ("stop", "length", "tool_calls", "content_filter")


async def chat(ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
    """Stream `POST /v1/chat/completions`."""
    body = request.model_dump(exclude_none=True, exclude_unset=True)
    async with (
        _stream(ctx, request.model, "/v1/chat/completions", body) as events,
        aclosing(_with_usage(events, _chat_chunk)) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def generate(ctx: ServiceContext, request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
    """Stream `POST /v1/completions`, call `POST /v1/rerank`; other kinds are the backend's own."""
    if request.kind == "rerank":
        yield await _rerank(ctx, request)
        return
    if request.kind != "completion":
        raise InvalidParameters(
            f"{ctx.service} does not generate '{request.kind}'.", details={"kind": request.kind}
        )
    async for event in _complete(ctx, request):
        yield event


async def _complete(
    ctx: ServiceContext, request: CompletionRequest
) -> AsyncIterator[GenerateEvent]:
    body = request.model_dump(exclude_none=True, exclude_unset=True, exclude={"kind"})
    if body.pop("logprobs", False):
        # The older API has one field for both: the number of alternatives.
        body["logprobs"] = body.pop("top_logprobs", 0)
    async with (
        _stream(ctx, request.model, "/v1/completions", body) as events,
        aclosing(_with_usage(events, _completion_step)) as steps,
    ):
        async for step in steps:
            yield step


async def _with_usage(
    events: AsyncIterator[dict[str, Any]], read: Callable[[Mapping[str, Any]], T]
) -> AsyncGenerator[T, None]:
    """Yield what `read` makes of the events.

    The token counts follow in an event of their own, without a choice: our last chunk has both.
    """
    last: T | None = None
    async for event in events:
        item = read(event)
        if last is not None and not event.get("choices"):
            last = last.model_copy(update={"usage": item.usage or last.usage})
            continue
        if last is not None:
            yield last
        last = item if item.finish_reason is not None else None
        if last is None:
            yield item
    if last is not None:
        yield last


async def _rerank(ctx: ServiceContext, request: RerankRequest) -> GenerateEvent:
    body = request.model_dump(exclude_none=True, exclude={"kind"})
    data = await _post(ctx, request.model, "/v1/rerank", body)
    names = ("index", "relevance_score")
    results = [{name: each[name] for name in names} for each in data["results"]]
    return GenerateEvent(kind="result", result={"results": results}, usage=_usage(data))


async def embed(ctx: ServiceContext, request: EmbedRequest) -> Embeddings:
    """Call `POST /v1/embeddings`."""
    body = request.model_dump(exclude_none=True)
    data = await _post(ctx, request.model, "/v1/embeddings", body)
    vectors = [each["embedding"] for each in data["data"]]
    return Embeddings(model=request.model, vectors=vectors, usage=_usage(data) or Usage())


async def _post(
    ctx: ServiceContext, model: str | None, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    url = await ctx.endpoint(model)
    try:
        answer = await ctx.http.post(
            url + path, content=_encoded(body), headers=_JSON, timeout=_timeout()
        )
    except httpx.TransportError as error:
        raise await ctx.lost(url, error) from error
    return _body(answer)


async def list_models(ctx: ServiceContext) -> list[ModelInfo]:
    """Call `GET /v1/models`; an engine that does not run lists nothing."""
    try:
        url = await ctx.endpoint(None)
    except ServiceNotAvailable:
        return []
    try:
        answer = await ctx.http.get(url + "/v1/models")
    except httpx.TransportError as error:
        raise await ctx.lost(url, error) from error
    return [
        ModelInfo(name=str(each["id"]), service=ctx.service)
        for each in _body(answer).get("data", ())
    ]


async def health(ctx: ServiceContext) -> Health:
    """Call `GET /v1/models`: it answers when the engine does."""
    try:
        models = await list_models(ctx)
    except AIPlaygroundError as error:
        return Health(ok=False, detail=error.message)
    return Health(ok=True, models=tuple(model.name for model in models))


DEFAULTS: dict[str, Callable[..., Any]] = {
    "chat": chat,
    "generate": generate,
    "embed": embed,
    "list_models": list_models,
    "health": health,
}


@asynccontextmanager
async def _stream(
    ctx: ServiceContext, model: str, path: str, body: dict[str, Any]
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    url = await ctx.endpoint(model)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    try:
        async with ctx.http.stream(
            "POST", url + path, content=_encoded(body), headers=_JSON, timeout=_timeout()
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                _body(answer)
            yield _events(ctx, url, answer)
    except httpx.TransportError as error:
        raise await ctx.lost(url, error) from error


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidParameters(
            "A text of the request has half a character in it (a lone surrogate), which UTF-8 "
            "cannot hold. Leave it out."
        ) from error


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of an event stream, which end with a line feed and with nothing else.

    Not `aiter_lines`: that also splits at U+0085, U+2028 and others, which stand in answers.
    """
    rest = b""
    async for data in answer.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode("utf-8", "replace")
    yield rest.decode("utf-8", "replace")


async def _events(
    ctx: ServiceContext, url: str, answer: httpx.Response
) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of each event; an answer that breaks off is an error, not an end."""
    async for line in _lines(answer):
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = _parsed(ctx, data)
        if "choices" not in event and ("message" in event or "error" in event):
            raise _error(event, answer.status_code)
        yield event
    raise await ctx.lost(url, ConnectionResetError("the answer broke off"))


def _parsed(ctx: ServiceContext, data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ServiceFailed(
            f"{ctx.service}: its worker sent what is no event of the OpenAI API: {data[:80]!r}. "
            f"Check that the engine speaks it at this address.",
            failure=FailureClass.PLUGIN,
            details={"service": ctx.service},
        )
    return event


def _chat_chunk(event: Mapping[str, Any]) -> ChatChunk:
    choice = _choice(event)
    delta = choice.get("delta") or {}
    return ChatChunk(
        index=choice.get("index") or 0,
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or "",
        tool_calls=delta.get("tool_calls"),
        finish_reason=_finish(choice),
        usage=_usage(event),
        model=event.get("model"),
        logprobs=(choice.get("logprobs") or {}).get("content"),
    )


def _completion_step(event: Mapping[str, Any]) -> GenerateEvent:
    choice = _choice(event)
    return GenerateEvent(
        kind="text",
        index=choice.get("index") or 0,
        text=choice.get("text") or "",
        finish_reason=_finish(choice),
        usage=_usage(event),
        logprobs=from_text(choice.get("logprobs")),
    )


def _choice(event: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = event.get("choices") or [{}]
    first: Mapping[str, Any] = choices[0]
    return first


def _finish(choice: Mapping[str, Any]) -> Any:
    reason = choice.get("finish_reason")
    return reason if reason in _FINISH else ("stop" if reason else None)


def _usage(event: Mapping[str, Any]) -> Usage | None:
    usage = event.get("usage")
    if not usage:
        return None
    return Usage(
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = {"message": f"HTTP {answer.status_code}: {answer.text[:500]}"}
    if answer.is_error or not isinstance(body, dict):
        raise _error(body if isinstance(body, dict) else {}, answer.status_code)
    return body


def _error(body: Mapping[str, Any], status: int) -> AIPlaygroundError:
    if isinstance(body.get("code"), int) and body["code"] < 0:
        return from_dict(dict(body))
    told = body.get("error")
    message = str(told.get("message") if isinstance(told, dict) else told or body.get("message"))
    kinds: dict[int, type[AIPlaygroundError]] = {
        400: InvalidParameters,
        404: ModelNotFound,
        422: InvalidParameters,
        501: InvalidParameters,  # llama-server: it was not started for this kind of request
        503: ServiceNotAvailable,
    }
    return kinds.get(status, AIPlaygroundError)(message, details={"status": status})


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(None, connect=CONNECT_TIMEOUT)
