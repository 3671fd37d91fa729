"""What the dialects have in common that are translated to OpenAI's chat API: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from aiplayground.errors import InvalidParameters, suggest

Fields = Mapping[str, Any]


def given(fields: Fields) -> dict[str, Any]:
    """Return the fields that are given: a null is what clients send for "not given"."""
    return {name: value for name, value in fields.items() if value is not None}


def check_known(fields: Fields, known: Collection[str]) -> None:
    """Refuse a field that would be ignored."""
    for name in fields:
        if name not in known:
            raise InvalidParameters(
                f"'{name}' is not supported.{suggest(name, known)}", details={"field": name}
            )


def refuse(field: str, why: str) -> InvalidParameters:
    """Return the error for a field that cannot be honoured."""
    return InvalidParameters(f"'{field}' {why}.", details={"field": field})


def as_objects(value: Any, field: str) -> list[dict[str, Any]]:
    """Return a list of objects, or raise."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return value
    raise refuse(field, "must be a list of objects")


def as_text(value: Any, field: str) -> str:
    """Return a text, or raise."""
    if isinstance(value, str):
        return value
    raise refuse(field, "must be a text")


def function_tool(
    name: Any, description: Any, parameters: Any, *, strict: Any = None
) -> dict[str, Any]:
    """Return a tool as the chat API has it."""
    function = {"name": name, "description": description, "parameters": parameters}
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": given(function)}


def tool_call(key: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a call of a tool as the chat API has it."""
    function = {"name": name, "arguments": arguments}
    return {"id": key, "type": "function", "function": function}


def plain_or_parts(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return parts of a message; as one text where they are text alone, which engines all read."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def image_part(url: Any, field: str) -> dict[str, Any]:
    """Return a picture as the chat API has it."""
    return {"type": "image_url", "image_url": {"url": as_text(url, field)}}
