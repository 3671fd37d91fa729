"""From plain data to a request, with one clear sentence about what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import InvalidParameters, suggest
from .types import GenerateRequest

M = TypeVar("M", bound=BaseModel)


def parse(kind: type[M], given: M | Mapping[str, Any]) -> M:
    """Return the request; a mapping is validated. Raises `InvalidParameters`."""
    if isinstance(given, kind):
        return given
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise explain(error, kind.model_fields) from error


def parse_generate(given: GenerateRequest | Mapping[str, Any]) -> GenerateRequest:
    """Return the request that `kind` names; a mapping is validated. Raises `InvalidParameters`."""
    if isinstance(given, BaseModel):
        return given
    try:
        return _generate().validate_python(given)
    except ValidationError as error:
        raise explain(error) from error


@cache
def _generate() -> TypeAdapter[GenerateRequest]:
    return TypeAdapter(GenerateRequest)


def explain(error: ValidationError, known: Collection[str] = ()) -> InvalidParameters:
    """Turn pydantic's findings into one sentence about the first of them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = _path(found["loc"])
    if found["type"] == "extra_forbidden":
        message = f"'{field}' is not a parameter of this request.{suggest(field, known)}"
    elif found["type"] == "missing":
        message = f"'{field}' is missing."
    else:
        text = found["msg"]
        message = f"'{field}': {text[:1].lower()}{text[1:]}."
    return InvalidParameters(message, details={"field": field})


def camel(name: str) -> str:
    """Return a name as it is outside: `show_open_dialog` is `showOpenDialog`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _path(location: tuple[int | str, ...]) -> str:
    """Write `("messages", 0, "role")` as `messages[0].role`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
