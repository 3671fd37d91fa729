"""From our chunks and errors to OpenAI's objects: pure functions.

Source of the shapes: the OpenAI API reference, "Chat" and "Completions".
"""

from __future__ import annotations

import secrets
import struct
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from aiplayground.errors import AIPlaygroundError, ErrorCode

from .logprobs import chat_logprobs, text_logprobs

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk, Embeddings, Usage

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

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return the object that opens a choice of a stream, where the API has one: the role."""
        if self.form == "completion":
            return None
        body = {"delta": {"role": "assistant", "content": ""}}
        return self.wrap([_choice(index, body, None, None)], stream=True)

    def piece(self, chunk: ChatChunk, offset: int = 0) -> dict[str, Any]:
        """Return the object for one chunk of a stream; `offset` is the text's length before it."""
        if self.form == "completion":
            body: dict[str, Any] = {"text": chunk.text}
            logprobs = text_logprobs(chunk.logprobs, offset)
        else:
            body = {"delta": _delta(chunk)}
            logprobs = chat_logprobs(chunk.logprobs)
        return self.wrap([_choice(chunk.index, body, logprobs, chunk.finish_reason)], stream=True)

    def closing(self, usage: Usage) -> dict[str, Any]:
        """Return the object that carries the usage at the end of a stream."""
        return self.wrap([], stream=True) | {"usage": usage_object(usage)}

    def whole(self, answers: Answers) -> dict[str, Any]:
        """Return the object for answers that are not streamed."""
        choices = [
            self._whole_choice(index, answer) for index, answer in sorted(answers.by_index.items())
        ]
        wrapped = self.wrap(choices, stream=False)
        usage = answers.totals.usage
        return wrapped | ({"usage": usage_object(usage)} if usage else {})

    def _whole_choice(self, index: int, answer: Answer) -> dict[str, Any]:
        if self.form == "completion":
            body: dict[str, Any] = {"text": answer.text}
            return _choice(index, body, text_logprobs(answer.logprobs), answer.finish_reason)
        body = {"message": answer.message()}
        return _choice(index, body, chat_logprobs(answer.logprobs), answer.finish_reason)


def _choice(
    index: int, body: dict[str, Any], logprobs: dict[str, Any] | None, reason: str | None
) -> dict[str, Any]:
    return {"index": index, **body, "logprobs": logprobs, "finish_reason": reason}


def _delta(chunk: ChatChunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.text:
        delta["content"] = chunk.text
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.tool_calls:
        delta["tool_calls"] = chunk.tool_calls
    return delta


@dataclass(slots=True)
class Totals:
    """What several answers to one request cost together: the prompt counts once."""

    by_index: dict[int, Usage] = field(default_factory=dict)

    def add(self, chunk: ChatChunk) -> None:
        """Take in the next chunk."""
        if chunk.usage is not None:
            self.by_index[chunk.index] = chunk.usage

    @property
    def usage(self) -> Usage | None:
        """The sum, or None if no chunk told."""
        told = list(self.by_index.values())
        if len(told) < 2:
            return told[0] if told else None
        return told[0].model_copy(
            update={
                "prompt_tokens": max(each.prompt_tokens for each in told),
                "completion_tokens": sum(each.completion_tokens for each in told),
            }
        )


@dataclass(slots=True)
class Answers:
    """The chunks of all answers to one request, put together."""

    by_index: dict[int, Answer] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)

    def add(self, chunk: ChatChunk) -> None:
        """Take in the next chunk."""
        self.by_index.setdefault(chunk.index, Answer()).add(chunk)
        self.totals.add(chunk)


@dataclass(slots=True)
class Answer:
    """The chunks of one answer, put together."""

    pieces: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, chunk: ChatChunk) -> None:
        """Take in the next chunk."""
        self.pieces.append(chunk.text)
        self.reasoning.append(chunk.reasoning)
        for call in chunk.tool_calls or ():
            self._add_call(call)
        self.entries.extend(chunk.logprobs or ())
        self.finish_reason = chunk.finish_reason or self.finish_reason

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.pieces)

    @property
    def logprobs(self) -> list[dict[str, Any]] | None:
        """The entries of all tokens, or None if there are none."""
        return self.entries or None

    def message(self) -> dict[str, Any]:
        """Return the assistant's message."""
        content = self.text or (None if self.tool_calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if reasoning := "".join(self.reasoning):
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [call for _, call in sorted(self.tool_calls.items())]
        return message

    def _add_call(self, call: dict[str, Any]) -> None:
        index = call.get("index", len(self.tool_calls))
        known = self.tool_calls.get(index)
        if known is None:
            self.tool_calls[index] = {key: call[key] for key in call if key != "index"}
            return
        # A delta: more of the arguments.
        function = {**known["function"]}
        more = (call.get("function") or {}).get("arguments") or ""
        function["arguments"] = (function.get("arguments") or "") + more
        known["function"] = function


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's `usage`, in tokens."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return body


def embedding_list(answer: Embeddings, *, base64: bool) -> dict[str, Any]:
    """Return the body of `POST /v1/embeddings`.

    With `base64` a vector is the base64 text of its 32-bit floats, lowest byte first, which is what
    OpenAI's Python client asks for.
    """
    vectors = [_packed(vector) if base64 else vector for vector in answer.vectors]
    usage = answer.usage
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": answer.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
    }


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def model_list(names: dict[str, int]) -> dict[str, Any]:
    """Return the body of `GET /v1/models`; `names` maps each model to its context, in tokens."""
    return {"object": "list", "data": [model_object(*each) for each in names.items()]}


def model_object(name: str, length: int) -> dict[str, Any]:
    """Return the body of `GET /v1/models/{name}`; `length` is the context's, in tokens."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "local",
        "context_length": length,
    }


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
