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
from aiplayground.types import ChatRequest, CompletionRequest, EmbedRequest, RerankRequest
from aiplayground.validation import explain

from .formats import check_format
from .tools import check_tools

R = TypeVar("R", ChatRequest, CompletionRequest)
V = TypeVar("V", ChatRequest, CompletionRequest, EmbedRequest, RerankRequest)

WITHOUT_EFFECT = frozenset(
    {
        "cache_prompt",
        "metadata",
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

MAX_NESTING = 128
"""Levels of objects and lists in a body."""

ALIASES = {"max_completion_tokens": "max_tokens", "n_predict": "max_tokens"}

# Values that change nothing, and so are accepted and dropped whatever the engine honours.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "echo": (False,),
    "logit_bias": ({}, []),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
    "top_logprobs": (0,),
}
# Fields of OpenAI's or llama.cpp's that this program has no request field for.
_REFUSED = frozenset(
    {"audio", "best_of", "dry_multiplier", "echo", "functions", "function_call", "json_schema"}
    | {"mirostat", "modalities", "prediction", "reasoning_effort", "suffix", "verbosity"}
    | {"web_search_options", "xtc_probability"}
)
# Values that change nothing for an engine that does not honour the field.
_NEUTRAL_OPTIONAL: Mapping[str, tuple[Any, ...]] = {
    "parallel_tool_calls": (True, False),
    "tool_choice": ("none", "auto"),
}
# What the worker itself does for an engine that can have tools in its prompt.
_WITH_TOOLS = frozenset({"tool_choice", "parallel_tool_calls"})
_ALWAYS = frozenset({"model", "messages", "prompt", "kind"})


class Call(NamedTuple, Generic[R]):
    """A request and how its answer is to be delivered."""

    request: R
    stream: bool
    include_usage: bool


class EmbedCall(NamedTuple):
    """A request for embeddings; `base64`: send vectors as bytes of 32-bit floats."""

    request: EmbedRequest
    base64: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises `InvalidParameters` for anything else."""
    try:
        value = _JSON.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
        if b"\\ud" in body or b"\\uD" in body:
            # Half a surrogate pair is valid JSON and no text: it cannot be encoded.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidParameters(f"The body is not valid JSON: {why}.") from error
    if not isinstance(value, dict):
        raise InvalidParameters(f"The body must be a JSON object, not {_kind(value)}.")
    _check_nesting(body, value)
    return value


def _check_nesting(body: bytes, value: Any) -> None:
    """Refuse what code that walks through it could not walk through."""
    if body.count(b"{") + body.count(b"[") <= MAX_NESTING:
        return
    level = [value]
    for _ in range(MAX_NESTING):
        lists = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for inner in lists for each in inner if isinstance(each, dict | list)]
    if level:
        raise InvalidParameters(f"The body is nested deeper than {MAX_NESTING} levels.")


def parse_chat(body: bytes, parameters: Collection[str]) -> Call[ChatRequest]:
    """Read the body of `POST /v1/chat/completions` for an engine that honours `parameters`."""
    fields = parse_object(body)
    messages = fields.get("messages")
    if isinstance(messages, list):
        fields["messages"] = [_without_nulls(message) for message in messages]
    call = _parse(fields, parameters, ChatRequest)
    check_tools(call.request, parameters)
    return call


def parse_completion(body: bytes, parameters: Collection[str]) -> Call[CompletionRequest]:
    """Read the body of `POST /v1/completions` for an engine that honours `parameters`."""
    fields = parse_object(body)
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise _refuse("prompt", "'prompt' must be one text; several, or tokens, are")
        fields["prompt"] = prompt[0]
    fields.pop("kind", None)
    count = fields.get("logprobs")
    if isinstance(count, int) and not isinstance(count, bool):
        # Here the older API has a number: of alternatives to each token.
        fields |= {"logprobs": True, "top_logprobs": count}
    return _parse(fields, parameters, CompletionRequest)


def parse_embeddings(body: bytes, parameters: Collection[str]) -> EmbedCall:
    """Read the body of `POST /v1/embeddings`; `dimensions` must be among the parameters."""
    given = parse_object(body)
    fields = {name: value for name, value in given.items() if value is not None}
    form = fields.pop("encoding_format", "float")
    if form not in ("float", "base64"):
        raise InvalidParameters(
            "'encoding_format' must be 'float' or 'base64'.", details={"field": "encoding_format"}
        )
    if "dimensions" in fields and "dimensions" not in parameters:
        raise _refuse("dimensions")
    fields.pop("user", None)
    text = fields.get("input")
    if isinstance(text, list) and any(not isinstance(each, str) for each in text):
        raise _refuse("input", "'input' must be a text or a list of texts; tokens are")
    fields["input"] = [text] if isinstance(text, str) else text
    return EmbedCall(validate(EmbedRequest, fields), form == "base64")


def _parse(fields: dict[str, Any], parameters: Collection[str], kind: type[R]) -> Call[R]:
    # A null is what clients send for "not given".
    fields = {name: value for name, value in fields.items() if value is not None}
    stream = _flag(fields, "stream")
    include_usage = _include_usage(fields)
    for alias, name in ALIASES.items():
        _rename(fields, alias, name)
    known = {name for name, value in fields.items() if _has_effect(name, value, parameters, kind)}
    request = validate(kind, {name: fields[name] for name in fields if name in known})
    if request.top_logprobs and not request.logprobs:
        raise InvalidParameters(
            "'top_logprobs' needs 'logprobs' to be true.", details={"field": "top_logprobs"}
        )
    check_format(request)
    return Call(request, stream, include_usage)


def validate(kind: type[V], fields: Mapping[str, Any]) -> V:
    """Check types and ranges; raises `InvalidParameters` naming the first field that is wrong."""
    try:
        return kind.model_validate(fields, strict=True)
    except ValidationError as error:
        raise explain(error, kind.model_fields) from error


def _has_effect(name: str, value: Any, parameters: Collection[str], kind: type[R]) -> bool:
    """Say whether the field goes into the request; raise if it cannot be honoured."""
    if name in WITHOUT_EFFECT or _is_one_of(value, _NEUTRAL.get(name, ())):
        return False
    if name in _REFUSED:
        raise _refuse(name)
    honoured = name in parameters or (name in _WITH_TOOLS and "tools" in parameters)
    if name in _ALWAYS or honoured or name not in kind.model_fields:
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


# Made once: `json.loads` makes one for each document that is not read in the plainest way.
_JSON = json.JSONDecoder(parse_constant=_no_constant)


_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "a boolean"),
    (dict, "an object"),
    (list, "a list"),
    (str, "a text"),
    ((int, float), "a number"),
)


def _kind(value: Any) -> str:
    return next((name for types, name in _KINDS if isinstance(value, types)), "null")
