"""Which model a conversation goes to, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ModelNotFound, suggest
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

    An empty name means the default model. Raises `ModelNotFound`, `ServiceNotAvailable` for an
    unknown backend, `InvalidParameters` where two backends have one of that name.
    """
    if backend == ROUTER:
        return await kernel.find_model(model or await kernel.default_model())
    service = kernel.service(backend).name
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


def sampling(settings: dict[str, Any]) -> dict[str, Any]:
    """Return sampling settings, checked; raises `InvalidParameters`."""
    given = parse(Sampling, settings).model_dump(exclude_none=True)
    for name in _ONE_ANSWER & set(given):
        raise InvalidParameters(
            f"'{name}' is of no use in a conversation: it has one answer, and its text alone.",
            details={"field": name},
        )
    return given


def request_of(model: ModelInfo, branch: Branch) -> ChatRequest:
    """Return the request for the next message of a branch."""
    messages = request_messages(branch.conversation.system_prompt, branch.messages)
    return ChatRequest.model_validate(
        {
            **branch.conversation.settings,
            "model": f"{model.service}/{model.name}",
            "messages": messages,
        }
    )
