"""Reading requests of the OpenAI dialect: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiplayground.errors import InvalidParameters
from aiplayground.serving.asgi import encode
from aiplayground.tracing import trace_of

from .policy import Priority

ROUTER = "ai-backend"
"""The name under which requests mean this router, rather than one backend."""

_FILE = ".gguf"


def model_name(fields: Mapping[str, Any]) -> str | None:
    """Return the model that a request names; None: the default one is meant.

    `ai-backend` means this router, so alone it names no model and in front of one it says nothing.
    Raises `InvalidParameters`.
    """
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidParameters(
            "'model' must name a model; /v1/models lists them.", details={"field": "model"}
        )
    if name == ROUTER:
        return None
    return name.removeprefix(f"{ROUTER}/")


def checked_name(name: str, *, trusted: bool) -> str:
    """Return the name of a model, which is no path: those need the token, as all files do.

    Raises `InvalidParameters`.
    """
    if trusted or not name.lower().endswith(_FILE):
        return name
    if any(each in name for each in "/\\~"):
        raise InvalidParameters(
            "A model file by its path needs the kernel's token: Authorization: Bearer …. Put the "
            "file into a models folder and use its name.",
            details={"reason": "unauthorized", "field": "model"},
        )
    return name[: -len(_FILE)]  # the kernel would look for a file of that name, too


def wants_stream(fields: Mapping[str, Any]) -> bool:
    """Say whether the answer is to be streamed; raises `InvalidParameters` for what is no flag."""
    stream = fields.get("stream")
    if stream is None or isinstance(stream, bool):
        return bool(stream)
    raise InvalidParameters("'stream' must be true or false.", details={"field": "stream"})


def renamed(body: bytes, fields: Mapping[str, Any], model: str) -> bytes:
    """Return the body with the name that the worker knows; the very bytes if it is that one."""
    return body if fields.get("model") == model else encode({**fields, "model": model})


def priority_of(headers: Mapping[str, str]) -> Priority:
    """Return how urgent a request says it is (`X-Priority: high | normal | low`)."""
    if "x-priority" not in headers:
        return Priority.NORMAL
    given = headers["x-priority"].strip().upper()
    if given in Priority.__members__:
        return Priority[given]
    raise InvalidParameters(
        "The header X-Priority must be high, normal or low.", details={"field": "x-priority"}
    )


def client_of(headers: Mapping[str, str], fields: Mapping[str, Any], address: str) -> str:
    """Return whom a request counts for in the queue: who it says it is, else its program."""
    said = headers.get("x-client") or fields.get("user") or headers.get("user-agent", "")
    return f"{address} {str(said)[:200]}"


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that go along to a worker: the trace that a request belongs to."""
    return trace_of(headers)
