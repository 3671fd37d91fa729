"""From the body of an OpenAI request to one of ours: pure functions.

Source of the shapes: the OpenAI API reference, "Chat" and "Completions". A field that would change
the answer is honoured or refused with -4, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from aiplayground.errors import InvalidParameters
from aiplayground.types import ChatRequest, CompletionRequest
from aiplayground.validation import explain

R = TypeVar("R", ChatRequest, CompletionRequest)

WITHOUT_EFFECT = frozenset(
    {
        "cache_prompt",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "timings_per_token",
        "user",
    }
)
"""Fields that say nothing about the answer's text; accepted and dropped."""

ALIASES = {"max_completion_tokens": "max_tokens", "n_predict": "max_tokens"}

# Fields of OpenAI's or llama.cpp's that this program has no request field for, with the values
# that change nothing and so are accepted.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "logit_bias": ({}, []),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "n": (1,),
    "suffix": ("",),
    "top_logprobs": (0,),
}
_REFUSED = frozenset(
    {"audio", "dry_multiplier", "functions", "function_call", "grammar", "json_schema", "mirostat"}
    | {"prediction", "reasoning_effort", "verbosity", "web_search_options", "xtc_probability"}
)
# Fields that a request of ours has, with the values that change nothing for an engine without.
_NEUTRAL_OPTIONAL: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
_ALWAYS = frozenset({"model", "messages", "prompt", "kind"})


class Call(NamedTuple, Generic[R]):
    """A request and how its answer is to be delivered."""

    request: R
    stream: bool
    include_usage: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises `InvalidParameters` for anything else."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
        if b"\\ud" in body or b"\\uD" in body:
            # Half a surrogate pair is valid JSON and no text: it cannot be encoded.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidParameters(f"The body is not valid JSON: {why}.") from error
    if not isinstance(value, dict):
        raise InvalidParameters(f"The body must be a JSON object, not {_kind(value)}.")
    return value


def parse_chat(body: bytes, parameters: Collection[str]) -> Call[ChatRequest]:
    """Read the body of `POST /v1/chat/completions` for an engine that honours `parameters`."""
    fields = parse_object(body)
    messages = fields.get("messages")
    if isinstance(messages, list):
        fields["messages"] = [_without_nulls(message) for message in messages]
    return _parse(fields, parameters, ChatRequest)


def parse_completion(body: bytes, parameters: Collection[str]) -> Call[CompletionRequest]:
    """Read the body of `POST /v1/completions` for an engine that honours `parameters`."""
    fields = parse_object(body)
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise _refuse("prompt", "'prompt' must be one text; several, or tokens, are")
        fields["prompt"] = prompt[0]
    fields.pop("kind", None)
    return _parse(fields, parameters, CompletionRequest)


def _parse(fields: dict[str, Any], parameters: Collection[str], kind: type[R]) -> Call[R]:
    # A null is what clients send for "not given".
    fields = {name: value for name, value in fields.items() if value is not None}
    stream = _flag(fields, "stream")
    include_usage = _include_usage(fields)
    for alias, name in ALIASES.items():
        _rename(fields, alias, name)
    known = {name for name, value in fields.items() if _has_effect(name, value, parameters, kind)}
    request = validate(kind, {name: fields[name] for name in fields if name in known})
    return Call(request, stream, include_usage)


def validate(kind: type[R], fields: Mapping[str, Any]) -> R:
    """Check types and ranges; raises `InvalidParameters` naming the first field that is wrong."""
    try:
        return kind.model_validate(fields, strict=True)
    except ValidationError as error:
        raise explain(error, kind.model_fields) from error


def _has_effect(name: str, value: Any, parameters: Collection[str], kind: type[R]) -> bool:
    """Say whether the field goes into the request; raise if it cannot be honoured."""
    if name in WITHOUT_EFFECT or _is_one_of(value, _NEUTRAL.get(name, ())):
        return False
    if name in _NEUTRAL or name in _REFUSED:
        raise _refuse(name)
    if name in _ALWAYS or name in parameters or name not in kind.model_fields:
        return True  # an unknown field too: validation refuses it with a suggestion
    if _is_one_of(value, _NEUTRAL_OPTIONAL.get(name, ())):
        return False
    raise _refuse(name)


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    # 1 == True in Python, and `n: true` is a mistake to point out.
    return any(value == other and type(value) is type(other) for other in neutral)


def _refuse(name: str, what: str | None = None) -> InvalidParameters:
    what = what or f"'{name}' is"
    return InvalidParameters(f"{what} not supported by this engine yet.", details={"field": name})


def _rename(fields: dict[str, Any], alias: str, name: str) -> None:
    if alias not in fields:
        return
    value = fields.pop(alias)
    if fields.setdefault(name, value) != value:
        raise InvalidParameters(
            f"'{alias}' and '{name}' mean the same and differ: give one.", details={"field": alias}
        )


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.pop(name, False)
    if isinstance(value, bool):
        return value
    raise InvalidParameters(
        f"'{name}' must be true or false, not {_kind(value)}.", details={"field": name}
    )


def _include_usage(fields: dict[str, Any]) -> bool:
    options = fields.pop("stream_options", {})
    if not isinstance(options, dict):
        raise InvalidParameters(
            f"'stream_options' must be an object, not {_kind(options)}.",
            details={"field": "stream_options"},
        )
    given = {name: value for name, value in options.items() if value is not None}
    return _flag(given, "include_usage")


def _without_nulls(message: Any) -> Any:
    # Clients send back what they got, with "refusal": null and the like.
    if not isinstance(message, dict):
        return message
    return {name: value for name, value in message.items() if value is not None}


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "a boolean"),
    (dict, "an object"),
    (list, "a list"),
    (str, "a text"),
    ((int, float), "a number"),
)


def _kind(value: Any) -> str:
    return next((name for types, name in _KINDS if isinstance(value, types)), "null")
