"""The models of one kernel's backends: listed together, and found by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import (
    AIPlaygroundError,
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    suggest,
)

if TYPE_CHECKING:
    from ._host import Host
    from ._service import Service
    from ._services import Services
    from .status import ServiceInfo
    from .types import (
        ModelInfo,
    )

MODEL_SUFFIXES = (".gguf",)
NAMES_SHOWN = 10
INSTALL_HINT = "Install one, for instance: pip install aiplayground-llamacpp"


class Catalogue:
    """What every backend that is set up can serve."""

    def __init__(self, host: Host, services: Services) -> None:
        self._host = host
        self._services = services
        self._listed: list[ModelInfo] | None = None
        # Names that requests have asked for: there may be thousands of models to look through.
        self._asked: dict[tuple[str, str | None], ModelInfo] = {}
        self._unlisted: dict[str, AIPlaygroundError] = {}

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
        self._listed = catalogue
        self._asked.clear()

    async def _list(self, *, refresh: bool) -> list[ModelInfo]:
        if self._listed is None or refresh:
            # All at once: an endpoint that is away answers late.
            with self._host.library.one_look():
                listed = await asyncio.gather(*map(self._models_of, self._services.values()))
            self._keep([model for models in listed for model in models])
        assert self._listed is not None
        return self._listed

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
        if loaded != model.loaded and self._listed is not None:
            # Into the list, too: the next request for it finds the right one.
            place = self._listed.index(model)
            model = self._listed[place] = _changed(model, loaded=loaded)
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
        names = list(dict.fromkeys(each.name for each in self._listed or ()))
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
        models = self._listed if self._listed is not None else await self.models()
        found = (each.size for each in models if (each.service, each.name) == (service, model))
        return next(found, None)

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
