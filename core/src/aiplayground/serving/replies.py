"""From our chunks and errors to OpenAI's objects: pure functions.

Source of the shapes: the OpenAI API reference, "Chat" and "Completions".
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from aiplayground.errors import AIPlaygroundError, ErrorCode

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk, Usage

Form = Literal["chat", "completion"]

_OBJECTS = {
    ("chat", False): "chat.completion",
    ("chat", True): "chat.completion.chunk",
    ("completion", False): "text_completion",
    ("completion", True): "text_completion",
}
_PREFIXES = {"chat": "chatcmpl-", "completion": "cmpl-"}


def _new_id() -> str:
    return secrets.token_hex(12)


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one answer share. `created` is in seconds since the epoch."""

    form: Form
    model: str
    key: str = field(default_factory=_new_id)
    created: int = field(default_factory=_now)

    def wrap(self, choices: list[dict[str, Any]], *, stream: bool) -> dict[str, Any]:
        """Return an object of this answer with the given choices."""
        return {
            "id": _PREFIXES[self.form] + self.key,
            "object": _OBJECTS[self.form, stream],
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def opening(self) -> dict[str, Any] | None:
        """Return the object that opens a stream, where the API has one: it names the role."""
        if self.form == "completion":
            return None
        return self._choice({"delta": {"role": "assistant", "content": ""}}, None)

    def piece(self, chunk: ChatChunk) -> dict[str, Any]:
        """Return the object for one chunk of a stream."""
        if self.form == "completion":
            return self._choice({"text": chunk.text}, chunk.finish_reason)
        delta: dict[str, Any] = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.tool_calls:
            delta["tool_calls"] = chunk.tool_calls
        return self._choice({"delta": delta}, chunk.finish_reason)

    def closing(self, usage: Usage) -> dict[str, Any]:
        """Return the object that carries the usage at the end of a stream."""
        return self.wrap([], stream=True) | {"usage": usage_object(usage)}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return the object for an answer that is not streamed."""
        body: dict[str, Any] = {"text": answer.text}
        if self.form == "chat":
            body = {"message": answer.message()}
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": answer.finish_reason}
        wrapped = self.wrap([choice], stream=False)
        return wrapped | ({"usage": usage_object(answer.usage)} if answer.usage else {})

    def _choice(self, body: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": finish_reason}
        return self.wrap([choice], stream=True)


@dataclass(slots=True)
class Answer:
    """The chunks of one answer, put together."""

    pieces: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None

    def add(self, chunk: ChatChunk) -> None:
        """Take in the next chunk."""
        self.pieces.append(chunk.text)
        self.reasoning.append(chunk.reasoning)
        self.tool_calls.extend(chunk.tool_calls or ())
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.pieces)

    def message(self) -> dict[str, Any]:
        """Return the assistant's message."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if reasoning := "".join(self.reasoning):
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return message


def usage_object(usage: Usage) -> dict[str, int]:
    """Return OpenAI's `usage`, in tokens."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def model_list(names: dict[str, int]) -> dict[str, Any]:
    """Return the body of `GET /v1/models`; `names` maps each model to its context, in tokens."""
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "local", "context_length": length}
        for name, length in names.items()
    ]
    return {"object": "list", "data": models}


_BY_REASON = {
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "method": 405,
    "too-large": 413,
}
_BY_CODE = {
    ErrorCode.INVALID_PARAMETERS: 400,
    ErrorCode.MODEL_NOT_FOUND: 404,
    ErrorCode.SERVICE_NOT_AVAILABLE: 503,
}

_OPENAI_CODES = {
    ErrorCode.MODEL_NOT_FOUND: "model_not_found",
    ErrorCode.SERVICE_NOT_AVAILABLE: "service_not_available",
    ErrorCode.INVALID_PARAMETERS: "invalid_parameters",
}


def status_of(error: AIPlaygroundError) -> int:
    """Return the HTTP status for an error."""
    if error.code is ErrorCode.INVALID_PARAMETERS:
        return _BY_REASON.get(str(error.details.get("reason")), 400)
    return _BY_CODE.get(error.code, 500)


def error_body(error: AIPlaygroundError, *, openai: bool) -> dict[str, Any]:
    """Return the documented error body, with OpenAI's `error` object beside it if asked."""
    body = error.to_dict()
    if openai:
        body["error"] = {
            "message": error.message,
            "type": "invalid_request_error" if status_of(error) < 500 else "server_error",
            "code": _OPENAI_CODES.get(error.code),
            "param": error.details.get("field"),
        }
    return body
