"""From a request to an answer: checked, held to a running model, streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ._context import Context
from .errors import (
    FailureClass,
    InvalidParameters,
    PluginError,
    ServiceFailed,
)
from .leases import Lease
from .middleware import RequestCall, compose_request, watches_requests
from .specs import Capability
from .states import Runtime

if TYPE_CHECKING:
    from ._catalogue import Catalogue
    from ._host import Host
    from ._router import Route
    from ._service import Service
    from ._services import Services
    from .types import (
        ChatChunk,
        ChatRequest,
        Embeddings,
        EmbedRequest,
        GenerateEvent,
        GenerateRequest,
        ModelInfo,
    )

SUBJECT = frozenset({"model", "messages", "prompt", "kind", "input", "query", "documents", "text"})
"""Request fields that say what is asked; all others are parameters that a backend declares."""


class Inference:
    """The requests of one kernel."""

    def __init__(self, host: Host, services: Services, catalogue: Catalogue) -> None:
        self._host = host
        self._services = services
        self._catalogue = catalogue

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation."""
        service, model = await self._catalogue.resolve(request.model)
        _check_capability(service, Capability.CHAT)
        _check_parameters(service, request)
        _check_images(service, request)
        async with aclosing(self._run(service, "chat", request, model.name)) as items:
            async for item in items:
                yield item

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Make what `request.kind` names."""
        if request.model is None:
            raise InvalidParameters("Name a model: this backend has no default one.")
        service, model = await self._catalogue.resolve(request.model)
        _check_capability(service, Capability(request.kind))
        _check_parameters(service, request)
        async with aclosing(self._run(service, "generate", request, model.name)) as items:
            async for item in items:
                yield item

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn texts into vectors."""
        service, model = await self._catalogue.resolve(request.model)
        _check_capability(service, Capability.EMBEDDING)
        _check_parameters(service, request)
        found: Embeddings | None = None
        async with aclosing(self._run(service, "embed", request, model.name)) as items:
            async for item in items:
                found = item  # read to the end: middleware must not take this for a caller gone
        if found is not None:
            return found
        raise ServiceFailed(
            f"{service.name} returned no embeddings: a middleware dropped them.",
            failure=FailureClass.PLUGIN,
        )

    def passes_through(self, service: str, hook: str) -> bool:
        """Say whether a request may go to the worker as it is: nothing of ours would look at it."""
        found = self._services[service]
        return (
            found.spec.api == "openai"
            and found.attachment is None  # its key and certificates are the kernel's affair
            and not self._host.router.implements(service, hook)
            and not watches_requests(self._host.middleware)
        )

    def lease(self, model: ModelInfo, capability: Capability) -> AbstractAsyncContextManager[Lease]:
        """Hold a model, and the answer in progress, for a request that goes to its worker."""
        service = self._services[model.service]
        _check_capability(service, capability)
        return _Leased(service, model.name, self._start)

    async def _run(
        self, service: Service, hook: str, request: Any, model: str
    ) -> AsyncGenerator[Any, None]:
        request = request.model_copy(update={"model": model})
        route = service.ops.find(hook)
        if route is None:
            raise InvalidParameters(f"{service.name} has no '{hook}'.")
        proceed = compose_request(
            self._host.middleware,
            RequestCall(service.name, hook, request),
            lambda sent: _innermost(route, service, sent),
        )
        patience = self._host.settings.timeouts.answer
        try:
            async with (
                self.using(service, model),
                aclosing(service.streams.run(proceed(request), patience)) as items,
            ):
                async for item in items:
                    yield item
        except PluginError as error:
            service.log.logger.error("%s", error.message, exc_info=error)
            raise

    @asynccontextmanager
    async def using(self, service: Service, model: str) -> AsyncIterator[None]:
        """Hold a model in memory, starting the service and loading the model if need be."""
        await self._start(service, model)
        async with service.ops.residency.use(model):
            yield

    async def _start(self, service: Service, model: str) -> None:
        if service.runtime in (Runtime.STOPPED, Runtime.FAILED):
            # Asked before: what does not fit must not start an engine, nor fail the start.
            await self._host.admission.check(service.name, model)
        await service.start(model)


class _Leased(AbstractAsyncContextManager[Lease]):
    """A model that is held for a request; a class, because every request makes one."""

    __slots__ = ("_hold", "_model", "_service", "_start", "_use")

    def __init__(
        self, service: Service, model: str, start: Callable[[Service, str], Awaitable[None]]
    ) -> None:
        self._service = service
        self._start = start
        self._model = model
        self._use = service.ops.residency.use(model)
        self._hold = service.streams.hold()

    async def __aenter__(self) -> Lease:
        service = self._service
        await self._start(service, self._model)
        await self._use.__aenter__()
        self._hold.__enter__()
        try:
            url = await service.ops.endpoint(self._model)
        except BaseException:
            await self.__aexit__()  # raises in its place what ended the service, if that was it
            raise
        ctx = Context(service)
        return Lease(service.name, self._model, url, partial(ctx.lost, url))

    async def __aexit__(self, *exc: object) -> None:
        try:
            self._hold.__exit__(*exc)
        finally:
            await self._use.__aexit__(*exc)


async def _innermost(route: Route, service: Service, request: Any) -> AsyncGenerator[Any, None]:
    if route.hook == "embed":
        yield await route.call(Context(service), request)
        return
    async with aclosing(route.stream(Context(service), request)) as items:
        async for item in items:
            yield item


def _check_capability(service: Service, capability: Capability) -> None:
    if capability not in service.spec.capabilities:
        can = ", ".join(sorted(service.spec.capabilities)) or "nothing"
        raise InvalidParameters(
            f"{service.name} does not do '{capability}'; it does {can}.",
            details={"service": service.name, "capability": capability.value},
        )


def _check_parameters(service: Service, request: Any) -> None:
    given = {name for name in request.model_fields_set if getattr(request, name) is not None}
    unknown = sorted(given - SUBJECT - service.spec.parameters)
    if unknown:
        raise InvalidParameters(
            f"{service.name} does not support {', '.join(unknown)}; leave it out.",
            details={"service": service.name, "parameters": unknown},
        )


def _check_images(service: Service, request: ChatRequest) -> None:
    if Capability.VISION in service.spec.capabilities:
        return
    for message in request.messages:
        if isinstance(message.content, list) and any(
            part.get("type") not in ("text", None) for part in message.content
        ):
            raise InvalidParameters(
                f"{service.name} reads text only; leave out images and other parts.",
                details={"service": service.name},
            )
