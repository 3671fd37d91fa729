"""From chunks of an answer to the events and the object of Anthropic's Messages API.

Source: the Anthropic API reference, "Streaming Messages". Blocks come one after another.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from aiplayground.serving.replies import Totals

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk

Event = dict[str, Any]

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class MessageBuilder:
    """Builds one message; what it returns are the events that a stream has at that moment."""

    def __init__(self, model: str) -> None:
        self._base = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._blocks: list[dict[str, Any]] = []
        self._open = False
        self._call: int | None = None
        self._reason: str | None = None
        self._totals = Totals()

    def begin(self) -> list[Event]:
        """Open the message."""
        return [{"type": "message_start", "message": self.message()}]

    def add(self, chunk: ChatChunk) -> list[Event]:
        """Take in the next chunk."""
        self._totals.add(chunk)
        self._reason = chunk.finish_reason or self._reason
        events: list[Event] = []
        if chunk.reasoning:
            events += self._text("thinking", chunk.reasoning)
        if chunk.text:
            events += self._text("text", chunk.text)
        for call in chunk.tool_calls or ():
            events += self._tool(call)
        return events

    def end(self) -> list[Event]:
        """Close the message."""
        message = self.message()
        delta = {name: message[name] for name in ("stop_reason", "stop_sequence")}
        return [
            *self._close(),
            {"type": "message_delta", "delta": delta, "usage": message["usage"]},
            {"type": "message_stop"},
        ]

    def message(self) -> dict[str, Any]:
        """Return the message as it stands."""
        usage = self._totals.usage
        cached = (usage.cached_tokens or 0) if usage else 0
        return {
            **self._base,
            "content": [_finished(block) for block in self._blocks],
            "stop_reason": _STOP_REASONS.get(self._reason or ""),
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage.prompt_tokens - cached if usage else 0,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
                "output_tokens": usage.completion_tokens if usage else 0,
            },
        }

    def _text(self, kind: str, text: str) -> list[Event]:
        events: list[Event] = []
        delta, name = _DELTAS[kind]
        if not self._open or self._blocks[-1]["type"] != kind:
            block = {"type": kind, name: ""} | ({"signature": ""} if kind == "thinking" else {})
            events = self._begin(block)
        self._blocks[-1][name] += text
        return [*events, self._delta({"type": delta, name: text})]

    def _tool(self, call: dict[str, Any]) -> list[Event]:
        function = call.get("function") or {}
        index = call.get("index", 0)
        events: list[Event] = []
        if not self._open or self._blocks[-1]["type"] != "tool_use" or index != self._call:
            self._call = index
            key = call.get("id") or f"toolu_{uuid.uuid4().hex}"
            block = {"type": "tool_use", "id": key, "name": function.get("name", ""), "input": ""}
            events = self._begin(block)
        arguments = function.get("arguments") or ""
        self._blocks[-1]["input"] += arguments
        return [*events, self._delta({"type": "input_json_delta", "partial_json": arguments})]

    def _begin(self, block: dict[str, Any]) -> list[Event]:
        events = self._close()
        self._blocks.append(block)
        self._open = True
        shown = {**block, "input": {}} if block["type"] == "tool_use" else dict(block)
        start = {"type": "content_block_start", "index": self._index, "content_block": shown}
        return [*events, start]

    def _close(self) -> list[Event]:
        if not self._open:
            return []
        self._open = False
        return [{"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self._blocks) - 1


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] != "tool_use":
        return dict(block)
    try:
        arguments = json.loads(block["input"] or "{}")
    except ValueError:
        arguments = {"arguments": block["input"]}  # cut off, or no JSON: shown as it is
    return {**block, "input": arguments}
