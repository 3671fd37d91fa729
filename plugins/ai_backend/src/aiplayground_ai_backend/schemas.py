"""JSON schemas of request bodies, for the OpenAPI document.

The bodies themselves are checked where they are read, and where a worker reads them; these tell
what is needed and leave the rest of the OpenAI API to its own reference.
"""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}
_MESSAGE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {},
    },
    "required": ["role", "content"],
}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


_SAMPLING: dict[str, Any] = {
    "stream": _FLAG,
    "max_tokens": _COUNT,
    "temperature": {"type": "number", "minimum": 0, "maximum": 5},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
}
CHAT = _object(
    ["model", "messages"],
    model=_TEXT,
    messages={"type": "array", "items": _MESSAGE, "minItems": 1},
    **_SAMPLING,
)
COMPLETION = _object(["model", "prompt"], model=_TEXT, prompt={"type": "string"}, **_SAMPLING)
EMBEDDINGS = _object(
    ["model", "input"],
    model=_TEXT,
    input={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
)
RESPONSES = _object(
    ["model", "input"],
    model=_TEXT,
    input={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
    instructions={"type": "string"},
    stream=_FLAG,
    max_output_tokens=_COUNT,
)
_TURNS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": _object(
        ["role", "content"], role={"enum": ["user", "assistant"]}, content={"type": "string"}
    ),
}
MESSAGES = _object(
    ["model", "messages", "max_tokens"],
    model=_TEXT,
    messages=_TURNS,
    max_tokens=_COUNT,
    stream=_FLAG,
)
TOKENS = _object(["model", "messages"], model=_TEXT, messages=_TURNS)
IMAGES = _object(["prompt"], model=_TEXT, prompt=_TEXT, n=_COUNT, size={"type": "string"})
SPEECH = _object(["input"], model=_TEXT, input=_TEXT, voice={"type": "string"})
RERANK = _object(
    ["query", "documents"],
    model=_TEXT,
    query={"type": "string"},
    documents={"type": "array", "items": {"type": "string"}, "minItems": 1},
)
CHECK_MODEL = _object(
    ["data"], data=_object(["repo", "filename"], repo=_TEXT, filename={"type": "string"})
)
ACT = _object([], model={"type": "string"})
