"""The ASGI application of a worker: the OpenAI API over one engine.

Inference needs no token on loopback; loading and unloading do. Source of the routes: the OpenAI
API reference; `/health` and `/models/*` are the kernel's own.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aiplayground.errors import AIPlaygroundError, InvalidParameters

from .access import check_origin, check_token
from .asgi import (
    ClientGone,
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    send_bytes,
    send_json,
    until_gone,
)
from .engine import CountingEngine, EmbeddingEngine, ReleasingEngine, RerankEngine
from .host import Host
from .metrics import CANCELLED, CONTENT_TYPE, Metrics, Watch
from .protocol import HEALTH_PATH, LOAD_PATH, METRICS_PATH, RELEASE_PATH, UNLOAD_PATH
from .replies import (
    Answers,
    Envelope,
    Form,
    embedding_list,
    error_body,
    model_list,
    model_object,
    status_of,
)
from .rerank import parse_rerank, rank_list
from .sse import EventStream
from .wire import Call, parse_chat, parse_completion, parse_embeddings, parse_object

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk, Embeddings, EmbedRequest, RerankRequest, Scores


MODEL_PREFIX = "/v1/models/"


class Exchange(NamedTuple):
    """One request on its way to an answer."""

    headers: Mapping[str, str]
    receive: Receive
    send: Send


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]


class App:
    """Routes requests to the engine of `host`; `token` is the secret that control routes want."""

    def __init__(self, host: Host, token: str | None) -> None:
        self._host = host
        self._token = token
        self._metrics = Metrics()
        self._routes: dict[str, dict[str, Handler]] = {
            HEALTH_PATH: {"GET": self._health},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._complete},
            "/v1/embeddings": {"POST": self._embed},
            "/v1/rerank": {"POST": self._rerank},
            METRICS_PATH: {"GET": self._show_metrics},
            LOAD_PATH: {"POST": self._load},
            UNLOAD_PATH: {"POST": self._unload},
            RELEASE_PATH: {"GET": self._releasable, "POST": self._release},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI); the server is run without websockets and lifespan."""
        exchange = Exchange(headers_of(scope), receive, send)
        status = await self._respond(scope, exchange)
        if scope["path"] in self._routes:
            self._metrics.count(scope["path"], status)

    async def _respond(self, scope: Scope, exchange: Exchange) -> int:
        """Answer, whatever happens; return the status to count."""
        openai = scope["path"].startswith("/v1/")
        try:
            check_origin(exchange.headers)
            await self._route(scope)(exchange)
        except ClientGone:
            return CANCELLED
        except AIPlaygroundError as error:
            await send_json(exchange.send, status_of(error), error_body(error, openai=openai))
            return status_of(error)
        except Exception as error:  # noqa: BLE001  # the door: whatever it is gets an answer
            traceback.print_exception(error, file=sys.stderr)
            told = AIPlaygroundError(
                "The worker failed on this request. Its log has the details.",
                details={"exception": type(error).__name__},
            )
            await send_json(exchange.send, 500, error_body(told, openai=openai))
            return 500
        return 200

    def _methods(self, path: str) -> dict[str, Handler] | None:
        name = path.removeprefix(MODEL_PREFIX)
        if path in self._routes or name in ("", path):
            return self._routes.get(path)
        return {"GET": partial(self._model, name)}

    def _route(self, scope: Scope) -> Handler:
        methods = self._methods(scope["path"])
        if methods is None:
            raise InvalidParameters(
                f"There is nothing at {scope['path']}.", details={"reason": "not-found"}
            )
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            raise InvalidParameters(
                f"{scope['path']} answers {', '.join(methods)}, not {scope['method']}.",
                details={"reason": "method"},
            )
        return methods[method]

    async def _health(self, exchange: Exchange) -> None:
        status, body = self._host.health()
        await send_json(exchange.send, status, body)

    async def _models(self, exchange: Exchange) -> None:
        model = self._host.engine.loaded
        names = {model.name: model.context_length} if model else {}
        await send_json(exchange.send, 200, model_list(names))

    async def _model(self, name: str, exchange: Exchange) -> None:
        length = self._host.find_model(name).context_length
        await send_json(exchange.send, 200, model_object(name, length))

    async def _chat(self, exchange: Exchange) -> None:
        engine = self._host.engine
        call = parse_chat(await read_body(exchange.receive), engine.parameters)
        self._host.check_model(call.request.model)
        await self._answer(exchange, call, "chat", engine.chat(call.request))

    async def _complete(self, exchange: Exchange) -> None:
        engine = self._host.engine
        call = parse_completion(await read_body(exchange.receive), engine.parameters)
        self._host.check_model(call.request.model)
        await self._answer(exchange, call, "completion", engine.complete(call.request))

    async def _embed(self, exchange: Exchange) -> None:
        engine = self._host.engine
        call = parse_embeddings(await read_body(exchange.receive), engine.parameters)
        if not isinstance(engine, EmbeddingEngine):
            raise InvalidParameters("This engine makes no embeddings.", details={"field": "model"})
        self._host.check_model(call.request.model)
        answer = await until_gone(_embeddings(engine, call.request), exchange.receive)
        await send_json(exchange.send, 200, embedding_list(answer, base64=call.base64))

    async def _rerank(self, exchange: Exchange) -> None:
        engine = self._host.engine
        call = parse_rerank(await read_body(exchange.receive))
        if not isinstance(engine, RerankEngine):
            raise InvalidParameters("This engine does not rank.", details={"field": "model"})
        self._host.check_model(call.request.model or "")
        answer = await until_gone(_scores(engine, call.request), exchange.receive)
        await send_json(exchange.send, 200, rank_list(call, answer))

    async def _show_metrics(self, exchange: Exchange) -> None:
        engine = self._host.engine
        counters = engine.counters if isinstance(engine, CountingEngine) else {}
        text = self._metrics.render(engine.active, counters)
        await send_bytes(exchange.send, 200, text.encode(), CONTENT_TYPE)

    async def _answer(
        self,
        exchange: Exchange,
        call: Call[Any],
        form: Form,
        chunks: AsyncGenerator[ChatChunk, None],
    ) -> None:
        envelope = Envelope(form, call.request.model)
        watch = Watch(self._metrics)
        if call.stream:
            stream = EventStream(chunks, envelope, watch, include_usage=call.include_usage)
            await stream.deliver(exchange.receive, exchange.send)
            return
        answers = await until_gone(_collect(chunks, watch), exchange.receive)
        await send_json(exchange.send, 200, envelope.whole(answers))

    async def _load(self, exchange: Exchange) -> None:
        check_token(exchange.headers, self._token)
        fields = parse_object(await read_body(exchange.receive))
        path, name = _text(fields, "path"), _text(fields, "name")
        replace = fields.get("replace", True) is not False
        load = self._host.load(Path(path), name, replace=replace)
        model = await until_gone(load, exchange.receive)
        body = {"model": model.name, "context_length": model.context_length}
        await send_json(exchange.send, 200, body)

    async def _unload(self, exchange: Exchange) -> None:
        check_token(exchange.headers, self._token)
        await read_body(exchange.receive)
        await self._host.unload()
        await send_json(exchange.send, 200, {"model": None})

    async def _releasable(self, exchange: Exchange) -> None:
        check_token(exchange.headers, self._token)
        engine = self._host.engine
        kept = engine.releasable if isinstance(engine, ReleasingEngine) else 0
        await send_json(exchange.send, 200, {"releasable": kept})

    async def _release(self, exchange: Exchange) -> None:
        check_token(exchange.headers, self._token)
        await read_body(exchange.receive)
        engine = self._host.engine
        given = await engine.release() if isinstance(engine, ReleasingEngine) else 0
        await send_json(exchange.send, 200, {"released": given})


async def _collect(chunks: AsyncGenerator[ChatChunk, None], watch: Watch) -> Answers:
    answers = Answers()
    with watch:
        async with aclosing(chunks):
            async for chunk in chunks:
                watch.see(chunk)
                answers.add(chunk)
    return answers


async def _embeddings(engine: EmbeddingEngine, request: EmbedRequest) -> Embeddings:
    return await engine.embed(request)


async def _scores(engine: RerankEngine, request: RerankRequest) -> Scores:
    return await engine.rerank(request)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str) and value:
        return value
    raise InvalidParameters(f"'{name}' must be a text.", details={"field": name})
