"""From the events of `llama-server` to the chunks of an answer: pure.

Source of the events: "POST /completion" in `tools/server/README.md` of llama.cpp, with `stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    InvalidParameters,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.types import ChatChunk, FinishReason, Usage
from aiplayground_llamacpp.answer import covering
from aiplayground_llamacpp.prompt import too_long
from aiplayground_llamacpp.sight import unfit_image
from aiplayground_llamacpp.text import StopMatcher

from .request import Task

LEAST_LOGPROB = -9999.0
"""What stands for the logarithm of zero, which JSON does not have."""


TOO_LARGE = 413
"""The HTTP status of a body that is too large (RFC 9110)."""

_UNFIT = ("Failed to tokenize prompt", "Failed to load image")


class AnswerReader:
    """Reads one answer; `index` is its number among those to the request."""

    def __init__(self, task: Task, index: int) -> None:
        self._index = index
        self._stops = StopMatcher(task.stops)
        self._alternatives = task.logprobs
        self._entries: list[dict[str, Any]] = []
        self._prompt = len(task.prompt)
        self._size = task.size
        self._limit = task.limit
        self._kept = ""
        self._count = 0
        self._cached: int | None = None

    def take(self, event: Mapping[str, Any]) -> ChatChunk | None:
        """Return what an event lets out; with a finish reason it is the last chunk.

        Raises what an error among the events means.
        """
        if "error" in event:
            raise refusal(int(event["error"].get("code") or 500), event)
        self._measure(event)
        self._count = int(event.get("tokens_predicted") or 0)
        self._cached = (event.get("timings") or {}).get("cache_n", self._cached)
        if self._count > self._limit:  # it did not know how long the prompt would be
            self._count = self._limit
            return self._end("length", self._kept + self._stops.flush())
        text = str(event.get("content") or "")
        if event.get("stop"):
            return self._last(event, self._stops.feed(text))
        if self._alternatives is not None:
            self._entries += self._told(event.get("completion_probabilities") or ())
        piece = self._stops.feed(text)
        if self._stops.stopped:
            self._entries = covering(self._entries, len(piece))
            return self._end("stop", piece)
        if self._count >= self._limit:  # it comes with the finish reason, as with the other engine
            self._kept += piece
            return None
        return self._chunk(piece) if piece else None

    def _measure(self, event: Mapping[str, Any]) -> None:
        """Take in the length of a prompt with images, which is known only now."""
        if self._prompt:
            return
        self._prompt = int(event.get("tokens_evaluated") or 0)
        if self._prompt >= self._size:
            raise too_long(self._prompt, self._size)
        self._limit = min(self._limit, self._size - self._prompt)

    def _last(self, event: Mapping[str, Any], text: str) -> ChatChunk:
        self._cached = event.get("timings/cache_n", self._cached)
        ended = event.get("stop_type") == "eos"
        if ended:
            self._entries = self._entries[:-1]  # of the token that ends the answer
        text = self._kept + text + self._stops.flush()
        return self._end("stop" if ended else "length", text)

    def _end(self, reason: FinishReason, text: str) -> ChatChunk:
        # With several answers the prompt counts once.
        first = self._index == 0
        usage = Usage(
            prompt_tokens=self._prompt if first else 0,
            completion_tokens=self._count,
            cached_tokens=(self._cached if first else 0),
        )
        return self._chunk(text, finish_reason=reason, usage=usage)

    def _chunk(self, text: str, **fields: Any) -> ChatChunk:
        if self._entries:
            fields["logprobs"], self._entries = self._entries, []
        return ChatChunk(index=self._index, text=text, **fields)

    def _told(self, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                **_entry(each),
                "top_logprobs": [
                    _entry(other)
                    for other in (each.get("top_logprobs") or ())[: self._alternatives]
                ],
            }
            for each in found
        ]


def _entry(told: Mapping[str, Any]) -> dict[str, Any]:
    data = list(told.get("bytes") or ())
    value = told.get("logprob")
    return {
        "token": bytes(data).decode("utf-8", "replace"),
        "logprob": LEAST_LOGPROB if value is None else max(float(value), LEAST_LOGPROB),
        "bytes": data,
    }


def refusal(status: int, body: Mapping[str, Any]) -> AIPlaygroundError:
    """Turn an error of llama-server into the documented one that the other engine gives."""
    told = body.get("error")
    told = told if isinstance(told, Mapping) else {"message": str(told or body)}
    message = str(told.get("message") or "no reason")[:300]
    if status == 400 and ("grammar" in message or "samplers" in message):
        return InvalidParameters(
            f"The grammar cannot be used: llama.cpp does not understand it ({message}).",
            details={"field": "grammar"},
        )
    if message.startswith(_UNFIT):
        return unfit_image()
    if status == TOO_LARGE:
        return InvalidParameters(
            "The images are more than llama-server takes in one request. Send fewer or smaller "
            "ones.",
            details={"field": "messages"},
        )
    if told.get("type") == "exceed_context_size_error":
        return too_long(int(told.get("n_prompt_tokens") or 0), int(told.get("n_ctx") or 0))
    if status == 400:
        return InvalidParameters(f"llama-server refused the request: {message}.")
    if status == 503:
        return ServiceNotAvailable(f"llama-server is not ready: {message}. Try again in a moment.")
    return ServiceFailed(
        f"llama-server failed on this request: {message}. Try again; if it stays so, set a smaller "
        "context_size or batch_size, or use another model.",
        failure=FailureClass.CRASH,
        details={"status": status},
    )
