"""From a request to a running model: names are resolved, requests checked, answers streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._context import Context
from .errors import (
    AIPlaygroundError,
    FailureClass,
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    PluginError,
    ServiceFailed,
    suggest,
)
from .leases import Lease
from .middleware import RequestCall, compose_request, watches_requests
from .specs import Capability
from .states import Runtime

if TYPE_CHECKING:
    from ._host import Host
    from ._router import Route
    from ._service import Service
    from ._services import Services
    from .admission import LoadPlan
    from .status import ServiceInfo
    from .types import (
        ChatChunk,
        ChatRequest,
        Embeddings,
        EmbedRequest,
        GenerateEvent,
        GenerateRequest,
        ModelInfo,
    )

MODEL_SUFFIXES = (".gguf",)
SUBJECT = frozenset({"model", "messages", "prompt", "kind", "input", "query", "documents", "text"})
"""Request fields that say what is asked; all others are parameters that a backend declares."""

NAMES_SHOWN = 10
INSTALL_HINT = "Install one, for instance: pip install aiplayground-llamacpp"


class Inference:
    """The requests of one kernel."""

    def __init__(self, host: Host, services: Services) -> None:
        self._host = host
        self._services = services
        self._catalogue: list[ModelInfo] | None = None
        # Names that requests have asked for: there may be thousands of models to look through.
        self._asked: dict[tuple[str, str | None], ModelInfo] = {}
        self._unlisted: dict[str, AIPlaygroundError] = {}

    # Models -------------------------------------------------------------------------------

    async def models(self, *, refresh: bool = True) -> list[ModelInfo]:
        """List what every backend that is set up can serve now, `loaded` included."""
        catalogue = await self._list(refresh=refresh)
        loaded = {
            (service.name, model)
            for service in self._services.values()
            for model in service.ops.residency.loaded
        }
        # Copied only where something is different: there may be thousands.
        found = [
            each if each.loaded is held else _changed(each, loaded=held)
            for each, held in ((each, (each.service, each.name) in loaded) for each in catalogue)
        ]
        self._keep(found)
        return list(found)

    def _keep(self, catalogue: list[ModelInfo]) -> None:
        self._catalogue = catalogue
        self._asked.clear()

    async def _list(self, *, refresh: bool) -> list[ModelInfo]:
        if self._catalogue is None or refresh:
            # All at once: an endpoint that is away answers late.
            with self._host.library.one_look():
                listed = await asyncio.gather(*map(self._models_of, self._services.values()))
            self._keep([model for models in listed for model in models])
        assert self._catalogue is not None
        return self._catalogue

    async def _models_of(self, service: Service) -> list[ModelInfo]:
        self._unlisted.pop(service.name, None)
        if not service.info().set_up:
            return []
        try:
            models = await service.ops.list_models()
        except AIPlaygroundError as error:
            # One backend that cannot list must not hide the models of the others.
            service.log.logger.warning("Its models cannot be listed: %s", error.message)
            self._unlisted[service.name] = error
            return []
        name = service.name
        return [each if each.service == name else _changed(each, service=name) for each in models]

    async def resolve(self, name: str, service: str | None = None) -> tuple[Service, ModelInfo]:
        """Find the backend that serves a model.

        `name` is a model's name, `backend/model` where two backends have one of that name, or the
        path of a model file. Raises `ModelNotFound`.
        """
        if (name, service) in self._asked:
            return self._found(self._asked[name, service])
        path = _as_file(name)
        if path is not None:
            self._host.library.add(path)
        for refresh in (path is not None, True):
            found = _matching(name, path, await self._list(refresh=refresh), service)
            if len(found) == 1:
                if path is None and name in _names(found[0]):
                    self._asked[name, service] = found[0]
                return self._found(found[0])
            if found:
                raise _ambiguous(name, found)
        # A file that is there but damaged is in no catalogue: it tells best what is wrong.
        await self._host.library.check(str(path or name))
        raise self._unknown(name)

    async def resolve_for(self, service: Service, name: str) -> tuple[Service, ModelInfo]:
        """Find a model of one service; a service without models of its own means all the others.

        Such a one is the gateway: `ai-backend/m` is `m` then, and its name alone the default model.
        Raises `ModelNotFound`.
        """
        if service.spec.capabilities:
            return await self.resolve(name, service.name)
        name = name.removeprefix(f"{service.name}/")
        return await self.resolve(await self.default_model() if name == service.name else name)

    def _found(self, model: ModelInfo) -> tuple[Service, ModelInfo]:
        service = self._services[model.service]
        loaded = service.ops.residency.has(model.name)
        if loaded != model.loaded and self._catalogue is not None:
            # Into the list, too: the next request for it finds the right one.
            place = self._catalogue.index(model)
            model = self._catalogue[place] = _changed(model, loaded=loaded)
            self._asked.clear()
        return service, model

    def _unknown(self, name: str) -> AIPlaygroundError:
        service = name.partition("/")[0]
        if service in self._unlisted:
            return self._unlisted[service]
        if not any(each.spec.capabilities for each in self._services.values()):
            return ModelNotFound(
                f"There is no model '{name}', because no backend is installed that could run one. "
                f"{INSTALL_HINT}",
                details={"model": name, "models": []},
            )
        names = list(dict.fromkeys(each.name for each in self._catalogue or ()))
        why = self._unserved()
        if not names and why:
            return ModelNotFound(
                f"There is no backend that can run the model '{name}' now.{why}",
                details={"model": name, "models": []},
            )
        some = ", ".join(names[:NAMES_SHOWN]) or "none"
        return ModelNotFound(
            f"There is no model '{name}'.{suggest(name, names)} "
            f"Models here: {some}. `aipg models` lists them and says where they lie.{why}",
            details={"model": name, "models": names[:NAMES_SHOWN]},
        )

    def _unserved(self) -> str:
        """Say why backends list no models, each in a sentence with a space before it."""
        absent = [each.info() for each in self._services.values() if each.spec.capabilities]
        why = [_not_set_up(each) for each in absent if not each.set_up]
        return "".join(f" {each}" for each in (*why, *(e.message for e in self._unlisted.values())))

    async def size_of(self, service: str, model: str) -> int | None:
        """Return the bytes of a model's files, if its backend says them."""
        models = self._catalogue if self._catalogue is not None else await self.models()
        found = (each.size for each in models if (each.service, each.name) == (service, model))
        return next(found, None)

    async def plan(self, model: str, backend: str | None) -> LoadPlan:
        """Say what loading a model would do now; raises `ModelNotFound`."""
        service, info = await self.resolve(model, backend)
        return await self._host.admission.plan(service.name, info.name)

    async def default_model(self, service: str | None = None) -> str:
        """Return the model that is meant when none is named; of one service, if one is.

        The setting `models.default`; else the newest language model of the user's own; else the
        one that ships with a model pack.
        """
        chosen = self._host.settings.models.default
        if chosen and service is None:
            return chosen
        models = [each for each in await self.models() if each.type == "llm"]
        if service is not None:
            models = [each for each in models if each.service == service]
            if chosen and any(each.name == chosen for each in models):
                return chosen
            if not models:
                raise ModelNotFound(
                    f"{service} has no language model. `aipg models` lists those of all backends.",
                    details={"backend": service, "models": []},
                )
        packs = {str(path) for path in self._host.library.packs}
        own = [each for each in models if each.path not in packs]
        if own or models:
            return max(own or models, key=_age).name
        if not any(each.spec.capabilities for each in self._services.values()):
            raise ModelNotFound(f"No backend is installed that could run a model. {INSTALL_HINT}")
        if why := self._unserved():
            raise ModelNotFound(f"There is no backend that can run a model now.{why}")
        raise ModelNotFound(
            "There is no language model here yet. Put a GGUF file into a models folder "
            "(`aipg models paths` shows them), or install the package aiplayground-guide.",
        )

    # Requests -----------------------------------------------------------------------------

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation."""
        service, model = await self.resolve(request.model)
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
        service, model = await self.resolve(request.model)
        _check_capability(service, Capability(request.kind))
        _check_parameters(service, request)
        async with aclosing(self._run(service, "generate", request, model.name)) as items:
            async for item in items:
                yield item

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn texts into vectors."""
        service, model = await self.resolve(request.model)
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


def _not_set_up(service: ServiceInfo) -> str:
    if service.error is not None:
        return f"{service.name}: {service.error['message']}"
    return f"{service.name} is not set up. Run: aipg setup {service.name}"


def _as_file(name: str) -> Path | None:
    """Return the path if the name is one: it has a folder in it, or is a model file that exists."""
    if not name.lower().endswith(MODEL_SUFFIXES):
        return None
    path = Path(name).expanduser()
    if not (path.is_file() or _looks_like_path(name)):
        return None
    if not path.is_file():
        raise FileOperationError(f"There is no file {path}. Check the path.")
    return path.resolve()


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~", ".\\", "..\\")) or Path(name).is_absolute()


def _matching(
    name: str, path: Path | None, models: Iterable[ModelInfo], service: str | None
) -> list[ModelInfo]:
    models = [each for each in models if service is None or each.service == service]
    if path is not None:
        return [each for each in models if each.path == str(path)]
    exact = [each for each in models if name in _names(each)]
    folded = name.casefold().removesuffix(".gguf")
    return exact or [each for each in models if each.name.casefold() == folded]


def _names(model: ModelInfo) -> tuple[str, str]:
    return model.name, f"{model.service}/{model.name}"


def _ambiguous(name: str, found: list[ModelInfo]) -> InvalidParameters:
    choices = ", ".join(f"{each.service}/{each.name}" for each in found)
    return InvalidParameters(
        f"'{name}' is the name of several models. Say which: {choices}.",
        details={"model": name, "choices": choices.split(", ")},
    )


def _changed(model: ModelInfo, **fields: Any) -> ModelInfo:
    return model.model_copy(update=fields)


def _age(model: ModelInfo) -> float:
    try:
        return Path(model.path).stat().st_mtime
    except OSError:
        return 0.0


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
