"""`/v1/models`: every model of every backend that is set up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .requests import ROUTER, checked_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiplayground.kernel import Kernel
    from aiplayground.types import ModelInfo

    from .exchange import Exchange

_SHOWN = ("type", "size", "loaded", "context_length", "quantization", "parameters", "vision")


def entries(models: Iterable[ModelInfo]) -> list[dict[str, Any]]:
    """Return OpenAI's model objects; a name that two backends have gets the backend in front."""
    models = list(models)
    count = Counter(each.name for each in models)
    return [entry(each, qualified=count[each.name] > 1) for each in models]


def entry(model: ModelInfo, *, qualified: bool) -> dict[str, Any]:
    """Return OpenAI's object of one model, with what we know of it beside."""
    known = {name: getattr(model, name) for name in _SHOWN}
    return {
        "id": f"{model.service}/{model.name}" if qualified else model.name,
        "object": "model",
        "created": 0,
        "owned_by": model.service,
        **{name: value for name, value in known.items() if value is not None},
    }


async def list_models(kernel: Kernel, exchange: Exchange) -> None:
    """`GET /v1/models`."""
    body = {"object": "list", "data": entries(await kernel.models())}
    await exchange.reply_json(200, body)


async def show_model(kernel: Kernel, exchange: Exchange, name: str) -> None:
    """`GET /v1/models/{id}`; the id is answered as it was asked for."""
    if name == ROUTER:
        name = await kernel.default_model()
    named = checked_name(name.removeprefix(f"{ROUTER}/"), trusted=exchange.trusted)
    model = await kernel.find_model(named)
    await exchange.reply_json(200, entry(model, qualified=False) | {"id": name})
