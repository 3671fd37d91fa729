"""Tools of a chat request: checked, and turned into what the model is asked.

Source: the OpenAI API reference, "Function calling".
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, suggest

from .formats import check_schema, schema_of

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest, Message

MAX_TOOLS = 128

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_CHOICES = ("none", "auto", "required")


def check_tools(request: ChatRequest, parameters: Collection[str]) -> None:
    """Check tools, choice and the calls in the messages. Raises `InvalidParameters`.

    `parameters` are the fields that the engine honours.
    """
    names = _check_definitions(request.tools or ())
    _check_choice(request, names)
    for index, message in enumerate(request.messages):
        _check_calls(message, f"messages[{index}].tool_calls")
    if is_forced(request) and "response_format" not in parameters:
        raise _wrong(
            "tool_choice", "can only be 'auto' or 'none': this engine cannot force an answer's form"
        )
    if tools_offered(request) and schema_of(request) is not None:
        raise _wrong(
            "response_format",
            "and 'tools' exclude each other, since the format leaves no room for a call: leave "
            "one out, or set tool_choice to 'none'",
        )
    if tools_offered(request) and request.grammar is not None:
        raise _wrong("grammar", "and 'tools' exclude each other: leave one out")


def tools_offered(request: ChatRequest) -> list[dict[str, Any]]:
    """Return the tools that the model may call."""
    return [] if request.tool_choice == "none" else (request.tools or [])


def is_forced(request: ChatRequest) -> bool:
    """Say whether the answer must be a call."""
    return request.tool_choice == "required" or isinstance(request.tool_choice, dict)


def asked(request: ChatRequest) -> ChatRequest:
    """Return the request as the engine has to carry it out.

    Tools that must not be called are left out. A call that must be made becomes a JSON schema, so
    that every engine that can follow one can force a call.
    """
    if not is_forced(request):
        return request.model_copy(update={"tools": tools_offered(request) or None})
    choice = request.tool_choice
    name = choice["function"]["name"] if isinstance(choice, dict) else None
    functions = [tool["function"] for tool in request.tools or ()]
    schema = call_schema([each for each in functions if name in (None, each["name"])])
    form = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
    return request.model_copy(update={"response_format": form})


def call_schema(functions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON schema of a call to one of the functions."""
    definitions: dict[str, Any] = {}
    calls = []
    for number, function in enumerate(functions):
        key = f"arguments{number}"
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        definitions[key] = _moved(schema, f"#/$defs/{key}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": {"$ref": f"#/$defs/{key}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": definitions}


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references hold when it stands at `place` within another."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        moved["$ref"] = place + reference.removeprefix("#")
    return moved


def _check_definitions(tools: Sequence[Any]) -> list[str]:
    if len(tools) > MAX_TOOLS:
        raise _wrong("tools", f"may have {MAX_TOOLS} entries at most")
    names: list[str] = []
    for index, tool in enumerate(tools):
        names.append(_check_definition(tool, f"tools[{index}]"))
        if names[-1] in names[:-1]:
            raise _wrong(f"tools[{index}].function.name", "is the name of another tool too")
    return names


def _check_definition(tool: Mapping[str, Any], field: str) -> str:
    if tool.get("type") != "function":
        raise _wrong(f"{field}.type", "must be 'function'")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _wrong(f"{field}.function", "must be an object with a name")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(
            f"{field}.function.name", "must be 1 to 64 letters, digits, dots, dashes, underscores"
        )
    if not isinstance(function.get("description", ""), str | None):
        raise _wrong(f"{field}.function.description", "must be a text")
    parameters = {} if function.get("parameters") is None else function["parameters"]
    if not isinstance(parameters, dict):
        raise _wrong(f"{field}.function.parameters", "must be an object: a JSON schema")
    check_schema(parameters, f"{field}.function.parameters")
    return name


def _check_choice(request: ChatRequest, names: Sequence[str]) -> None:
    choice = request.tool_choice
    if isinstance(choice, str) and choice not in _CHOICES:
        raise _wrong("tool_choice", f"must be {', '.join(_CHOICES)}, or name a function")
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(name, str):
            raise _wrong(
                "tool_choice", 'must be like {"type": "function", "function": {"name": …}}'
            )
        if name not in names:
            raise _wrong("tool_choice", f"names no tool of this request.{suggest(name, names)}")
    if choice == "required" and not names:
        raise _wrong("tool_choice", "is 'required', and there are no 'tools'")


def _check_calls(message: Message, field: str) -> None:
    for index, call in enumerate(message.tool_calls or ()):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"{field}[{index}].function", "must have a name")
        if not isinstance(function.get("arguments", ""), str):
            raise _wrong(f"{field}[{index}].function.arguments", "must be a text with JSON in it")


def arguments_of(call: Mapping[str, Any]) -> Any:
    """Return the arguments of a call in a message: read if they are JSON, else the text."""
    text = call["function"].get("arguments") or "{}"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _wrong(field: str, what: str) -> InvalidParameters:
    return InvalidParameters(f"'{field}' {what}.", details={"field": field})
