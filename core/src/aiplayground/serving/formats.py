"""What shape an answer must have: `response_format` and `grammar`, checked and read.

Source: the OpenAI API reference, "Structured outputs"; `schema` beside `json_object` is
llama.cpp's. The keywords of a schema are the engine's to judge; what would make any converter
fetch, loop or fill the memory is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters

if TYPE_CHECKING:
    from aiplayground.types import Sampling

MAX_DEPTH = 64
"""Levels of nesting in a schema."""

MAX_VALUES = 10_000
"""Values in a schema, all levels together."""

MAX_REPEATS = 2_000
"""Highest count that a schema may demand: a grammar grows with it."""

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_TYPES = ("text", "json_object", "json_schema")


def check_format(request: Sampling) -> None:
    """Check `response_format` and `grammar`. Raises `InvalidParameters`."""
    form = request.response_format
    if form is None:
        return
    kind = form.get("type")
    if kind not in _TYPES:
        raise _wrong("response_format.type", f"must be one of {', '.join(_TYPES)}")
    if kind == "text":
        return
    if request.grammar is not None:
        raise _wrong("grammar", "and 'response_format' exclude each other: give one")
    field, schema = _schema(form)
    if not isinstance(schema, dict):
        raise _wrong(field, "must be an object: the JSON schema of the answer")
    check_schema(schema, field)


def schema_of(request: Sampling) -> dict[str, Any] | None:
    """Return the JSON schema that the answer must follow, or None if any text will do."""
    form = request.response_format
    if form is None or form.get("type") not in ("json_object", "json_schema"):
        return None
    schema = _schema(form)[1]
    return schema if isinstance(schema, dict) else {"type": "object"}


def is_constrained(request: Sampling) -> bool:
    """Say whether a grammar or schema decides how the answer begins."""
    return request.grammar is not None or schema_of(request) is not None


def check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Refuse a schema that nobody should try to convert; `field` names it in the error."""
    for count, (depth, value) in enumerate(_walk(schema)):
        if depth > MAX_DEPTH:
            raise _wrong(field, f"is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            raise _wrong(field, f"has more than {MAX_VALUES} values")
        if isinstance(value, dict):
            _check_keywords(value, field)


def _schema(form: Mapping[str, Any]) -> tuple[str, Any]:
    if form.get("type") == "json_object":
        return "response_format.schema", form.get("schema", {"type": "object"})
    inner = form.get("json_schema")
    if not isinstance(inner, dict):
        return "response_format.json_schema", None
    return "response_format.json_schema.schema", inner.get("schema")


def _check_keywords(schema: Mapping[str, Any], field: str) -> None:
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise _wrong(field, "may refer with $ref only to its own parts, as in '#/$defs/name'")
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and not 0 <= count <= MAX_REPEATS:
            raise _wrong(field, f"has a '{name}' that is not between 0 and {MAX_REPEATS}")


def _walk(root: Any) -> Iterator[tuple[int, Any]]:
    """Yield each value in a JSON value with its depth; without recursion."""
    waiting = [(0, root)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            waiting.extend((depth + 1, each) for each in inner)


def _wrong(field: str, what: str) -> InvalidParameters:
    return InvalidParameters(f"'{field}' {what}.", details={"field": field})
