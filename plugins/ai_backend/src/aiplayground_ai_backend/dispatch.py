"""From a request to a backend and back: names are routed, queues kept, answers delivered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from aiplayground.errors import ServiceNotAvailable
from aiplayground.serving.asgi import encode
from aiplayground.serving.replies import Envelope, Form, embedding_list
from aiplayground.serving.wire import (
    Call,
    parse_chat,
    parse_completion,
    parse_embeddings,
    parse_object,
)
from aiplayground.specs import Capability

from . import encoding
from .account import Account
from .delivery import Delivery, EventsOf, event
from .errors import body_of
from .relay import Passage, Relay
from .requests import (
    checked_name,
    client_of,
    model_name,
    passed_headers,
    priority_of,
    renamed,
    wants_stream,
)

if TYPE_CHECKING:
    from aiplayground.errors import AIPlaygroundError
    from aiplayground.kernel import Kernel
    from aiplayground.types import ChatChunk, ModelInfo

    from .exchange import Exchange
    from .metrics import Metrics
    from .queue import OnWait, Queues
    from .settings import Settings


class Kind(NamedTuple):
    """A kind of request: the hook that answers it, and where workers do."""

    hook: str
    capability: Capability
    path: str
    form: Form | None = None


CHAT = Kind("chat", Capability.CHAT, "/v1/chat/completions", "chat")
COMPLETION = Kind("generate", Capability.COMPLETION, "/v1/completions", "completion")
EMBEDDING = Kind("embed", Capability.EMBEDDING, "/v1/embeddings")


class Turn(NamedTuple):
    """A conversation's next turn, ready to be answered."""

    model: ModelInfo
    call: Call[Any]
    chunks: AsyncGenerator[ChatChunk, None]


class Dispatch:
    """Gives the requests of one gateway to the backends of its kernel."""

    def __init__(
        self,
        kernel: Kernel,
        settings: Settings,
        queues: Queues,
        relay: Relay,
        metrics: Metrics,
        on_defect: Callable[[Exception], None],
    ) -> None:
        self.kernel = kernel
        self._settings = settings
        self._queues = queues
        self._relay = relay
        self._metrics = metrics
        self._on_defect = on_defect

    async def find(self, exchange: Exchange, fields: dict[str, Any]) -> ModelInfo:
        """Return the model that a request names; raises `ModelNotFound` and others."""
        name = model_name(fields)
        if name is None:
            name = await self.kernel.default_model()
        else:
            name = checked_name(name, trusted=exchange.trusted)
        model = await self.kernel.find_model(name)
        self.check_running(model.service)
        return model

    def check_running(self, service: str) -> None:
        """Refuse what would start a backend, if that is not wanted."""
        if self._settings.start_on_demand or self.kernel.service(service).runtime == "running":
            return
        raise ServiceNotAvailable(
            f"{service} does not run, and backends are not started on demand here (setting "
            f"'start_on_demand' of ai-backend). Run: aipg start {service}",
            details={"service": service},
        )

    def place(
        self,
        exchange: Exchange,
        fields: dict[str, Any],
        service: str,
        on_wait: OnWait | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Return the place of a request in its backend's queue."""
        client = client_of(exchange.headers, fields, exchange.client)
        return self._queues.of(service).place(client, priority_of(exchange.headers), on_wait)

    def account(self, exchange: Exchange, model: ModelInfo) -> Account:
        """Begin to count what a request costs."""
        return Account(exchange, self._metrics, model.service, model.name)

    def delivery(self, exchange: Exchange, tell: EventsOf | None = None) -> Delivery:
        """Return what sends an event stream; `tell` makes the event of an error."""
        return Delivery(
            exchange,
            heartbeat=self._settings.heartbeat,
            tell=tell or _openai_error,
            on_defect=self._on_defect,
        )

    async def serve(self, exchange: Exchange, kind: Kind) -> None:
        """Answer a request of the OpenAI dialect."""
        body = await exchange.body()
        fields = parse_object(body)
        stream = kind.form is not None and wants_stream(fields)
        model = await self.find(exchange, fields)
        if self.kernel.passes_through(model.service, kind.hook):
            sent = renamed(body, fields, model.name)
            headers = passed_headers(exchange.trace)
            passage = Passage(model, kind.capability, kind.path, sent, headers)
            await self._pass_on(exchange, fields, passage, stream=stream)
        elif kind is EMBEDDING:
            await self._embed(exchange, fields, model, body)
        else:
            await self._answer(exchange, fields, model, body, kind)

    async def _pass_on(
        self, exchange: Exchange, fields: dict[str, Any], passage: Passage, *, stream: bool
    ) -> None:
        account = self.account(exchange, passage.model)
        if not stream:
            place = self.place(exchange, fields, passage.model.service)
            with exchange.there():
                data = await self._relay.whole(passage, place)
            account.first()
            await exchange.reply(200, data)
            account.whole(data)  # after the answer: looking through it takes its time
            return
        delivery = self.delivery(exchange)
        place = self.place(exchange, fields, passage.model.service, delivery.on_wait)
        await delivery.run(self._relay.events(passage, place, account))

    async def _answer(
        self,
        exchange: Exchange,
        fields: dict[str, Any],
        model: ModelInfo,
        body: bytes,
        kind: Kind,
    ) -> None:
        assert kind.form is not None
        delivery = self.delivery(exchange)
        turn = self._turn(exchange, fields, model, body, kind, delivery.on_wait)
        envelope = Envelope(kind.form, model.name)
        if turn.call.stream:
            include = turn.call.include_usage
            await delivery.run(encoding.events(turn.chunks, envelope, include_usage=include))
            return
        with exchange.there():
            answers = await encoding.collected(turn.chunks)
        await exchange.reply_json(200, envelope.whole(answers))

    async def chat(
        self, exchange: Exchange, fields: dict[str, Any], on_wait: OnWait | None = None
    ) -> Turn:
        """Return the answer to a body of the chat API, for dialects that are translated to it."""
        model = await self.find(exchange, fields)
        return self._turn(exchange, fields, model, encode(fields), CHAT, on_wait)

    def _turn(
        self,
        exchange: Exchange,
        fields: dict[str, Any],
        model: ModelInfo,
        body: bytes,
        kind: Kind,
        on_wait: OnWait | None,
    ) -> Turn:
        parse = parse_chat if kind is CHAT else parse_completion
        call: Call[Any] = parse(body, self.kernel.backend(model.service).parameters)
        request = call.request.model_copy(update={"model": _full_name(model)})
        if kind is CHAT:
            chunks = self.kernel.chat(request)
        else:
            chunks = encoding.as_chunks(self.kernel.generate(request))
        place = self.place(exchange, fields, model.service, on_wait)
        account = self.account(exchange, model)
        return Turn(model, call, _placed(place, encoding.counted(chunks, account)))

    async def _embed(
        self, exchange: Exchange, fields: dict[str, Any], model: ModelInfo, body: bytes
    ) -> None:
        call = parse_embeddings(body, self.kernel.backend(model.service).parameters)
        request = call.request.model_copy(update={"model": _full_name(model)})
        account = self.account(exchange, model)

        with exchange.there():
            async with self.place(exchange, fields, model.service):
                answer = await self.kernel.embed(request)
        account.usage(answer.usage)
        await exchange.reply(200, encode(embedding_list(answer, base64=call.base64)))


def _full_name(model: ModelInfo) -> str:
    return f"{model.service}/{model.name}"


async def _placed(
    place: AbstractAsyncContextManager[None], chunks: AsyncGenerator[ChatChunk, None]
) -> AsyncGenerator[ChatChunk, None]:
    async with place, aclosing(chunks):
        async for chunk in chunks:
            yield chunk


def _openai_error(error: AIPlaygroundError) -> bytes:
    return event(body_of(error, "openai"))
