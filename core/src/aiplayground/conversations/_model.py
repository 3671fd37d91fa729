"""Which model a conversation goes to, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ModelNotFound, suggest
from aiplayground.presets import ChatParameters
from aiplayground.types import ChatRequest, ModelInfo, Sampling
from aiplayground.validation import parse

from ._prompting import request_messages
from ._types import ROUTER

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

    from ._archive import Branch

NAMES_SHOWN = 10
_ONE_ANSWER = frozenset({"n", "logprobs", "top_logprobs"})


async def resolve(kernel: Kernel, model: str, backend: str = ROUTER) -> ModelInfo:
    """Return the model that is meant: of a backend, or with `ai-backend` of whichever has it.

    An empty name means the default model (of the backend). Raises `ModelNotFound`,
    `ServiceNotAvailable` for an unknown backend, `InvalidParameters` where two backends have one of
    that name.
    """
    if backend == ROUTER:
        return await kernel.find_model(model or await kernel.default_model())
    service = kernel.service(backend).name
    model = model or await kernel.default_model(service)
    own = [each for each in await kernel.models() if each.service == service]
    for found in own:
        if model in (found.name, found.path, f"{service}/{found.name}"):
            return found
    names = [each.name for each in own]
    some = ", ".join(names[:NAMES_SHOWN]) or "none"
    raise ModelNotFound(
        f"{service} has no model '{model}'.{suggest(model, names)} Models of {service}: {some}. "
        f"With '{ROUTER}' as the backend, the models of all are looked through.",
        details={"model": model, "backend": service, "models": names[:NAMES_SHOWN]},
    )


def sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling settings, checked; raises `InvalidParameters`."""
    given = parse(Sampling, settings).model_dump(exclude_none=True)
    for name in _ONE_ANSWER & set(given):
        raise InvalidParameters(
            f"'{name}' is of no use in a conversation: it has one answer, and its text alone.",
            details={"field": name},
        )
    return given


async def parameters_of(kernel: Kernel, preset: str | None) -> ChatParameters:
    """Return what a preset means to a conversation; without one that is nothing.

    Raises `InvalidParameters` (reason `no-preset`) for one that there is not, or that is no chat's.
    """
    if preset is None:
        return ChatParameters()
    presets = await kernel.store("presets")
    try:
        found: ChatParameters = presets.for_chat(preset)
        sampling(found.sampling)
        return found
    except InvalidParameters as error:
        raise InvalidParameters(
            f"{error.message} A conversation goes on with another one, or with '' for none: "
            f"`configure(preset=…)`.",
            details={**error.details, "reason": "no-preset"},
        ) from error


def model_with(
    models: Sequence[ModelInfo], given: ChatParameters, model: str, backend: str
) -> tuple[str, str]:
    """Return the model and the backend once a preset is chosen; those that are stay if they fit.

    An empty model stands for the backend's default one. `models` are those of all backends.
    """
    if given.model is not None:
        return given.model, given.backend
    if given.backend in (ROUTER, backend):
        return model, backend
    own = [each.name for each in models if each.service == given.backend]
    return model if model in own else "", given.backend


def request_of(model: ModelInfo, branch: Branch, given: ChatParameters) -> ChatRequest:
    """Return the request for the next message of a branch; what it says itself wins over `given`.

    Instructions that are empty are none of its own; a blank keeps the preset's away.
    """
    own = branch.conversation
    system, sampling = given.under(own.system_prompt or None, own.settings)
    return ChatRequest.model_validate(
        {
            **sampling,
            "model": f"{model.service}/{model.name}",
            "messages": request_messages(system or "", branch.messages),
        }
    )
