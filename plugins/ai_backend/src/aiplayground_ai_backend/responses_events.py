"""From chunks of an answer to the events and the object of OpenAI's Responses API.

Source: the OpenAI API reference, "Streaming events" of Responses. Items come one after another:
reasoning, text, calls of functions.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiplayground.serving.replies import Totals

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk

    from .translation import Fields

Event = dict[str, Any]

_ECHOED = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p", "user")


class ResponseBuilder:
    """Builds one response; what it returns are the events that a stream has at that moment.

    `fields` are the request's, of which the object repeats some.
    """

    def __init__(self, fields: Fields, model: str) -> None:
        self._number = 0
        self._totals = Totals()
        self._reason: str | None = None
        self._item: dict[str, Any] | None = None
        self._call: int | None = None
        self.output: list[dict[str, Any]] = []
        self._base: dict[str, Any] = {
            "id": _id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **{name: fields.get(name) for name in _ECHOED},
            "parallel_tool_calls": fields.get("parallel_tool_calls", True),
            "tool_choice": fields.get("tool_choice") or "auto",
            "tools": fields.get("tools") or [],
            "text": fields.get("text") or {"format": {"type": "text"}},
            "truncation": "disabled",
            "previous_response_id": None,
            "store": False,
        }

    def begin(self) -> list[Event]:
        """Open the response."""
        response = self.response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def add(self, chunk: ChatChunk) -> list[Event]:
        """Take in the next chunk."""
        self._totals.add(chunk)
        self._reason = chunk.finish_reason or self._reason
        events: list[Event] = []
        if chunk.reasoning:
            events += self._text("reasoning", chunk.reasoning)
        if chunk.text:
            events += self._text("message", chunk.text)
        for call in chunk.tool_calls or ():
            events += self._function(call)
        return events

    def end(self) -> list[Event]:
        """Close the response."""
        events = list(self._close())
        status = "incomplete" if self._reason in ("length", "content_filter") else "completed"
        return [*events, self._event(f"response.{status}", response=self.response(status))]

    def response(self, status: str) -> dict[str, Any]:
        """Return the response object as it stands."""
        why = {"length": "max_output_tokens", "content_filter": "content_filter"}
        incomplete = {"reason": why[self._reason or ""]} if status == "incomplete" else None
        return {
            **self._base,
            "status": status,
            "error": None,
            "incomplete_details": incomplete,
            "output": list(self.output),
            "usage": None if status == "in_progress" else self._usage(),
        }

    def error(self, code: str, message: str) -> Event:
        """Return the event that tells an error in the middle."""
        return self._event("error", code=code, message=message, param=None)

    # Items --------------------------------------------------------------------------------

    def _text(self, kind: str, text: str) -> list[Event]:
        """Add to the text of a message or of reasoning."""
        events: list[Event] = []
        if self._item is None or self._item["type"] != kind:
            events = [*self._close(), *self._open(_new_item(kind))]
            events.append(self._part_event("added"))
        assert self._item is not None
        self._item["content"][0]["text"] += text
        name = "output_text" if kind == "message" else "reasoning_text"
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        place = self._place() | {"content_index": 0}
        return [*events, self._event(f"response.{name}.delta", **place, delta=text, **more)]

    def _function(self, call: dict[str, Any]) -> list[Event]:
        """Add to a call of a function, which comes whole or in pieces."""
        function = call.get("function") or {}
        events: list[Event] = []
        index = call.get("index", 0)
        if self._item is None or self._item["type"] != "function_call" or index != self._call:
            self._call = index
            item = _new_item("function_call")
            item |= {"call_id": call.get("id") or _id("call"), "name": function.get("name", "")}
            events = [*self._close(), *self._open(item)]
        assert self._item is not None
        delta = function.get("arguments") or ""
        self._item["arguments"] += delta
        name = "response.function_call_arguments.delta"
        return [*events, self._event(name, **self._place(), delta=delta)]

    def _open(self, item: dict[str, Any]) -> list[Event]:
        self._item = item
        self.output.append(item)
        told = {**item, "content": []} if "content" in item else dict(item)
        place = {"output_index": len(self.output) - 1}
        return [self._event("response.output_item.added", **place, item=told)]

    def _close(self) -> Iterator[Event]:
        item = self._item
        if item is None:
            return
        place = self._place()
        if item["type"] == "function_call":
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **place, **done)
        else:
            name = "output_text" if item["type"] == "message" else "reasoning_text"
            more: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
            text = item["content"][0]["text"]
            place = place | {"content_index": 0}
            yield self._event(f"response.{name}.done", **place, text=text, **more)
            yield self._part_event("done")
        item["status"] = "completed"
        index = {"output_index": len(self.output) - 1}
        yield self._event("response.output_item.done", **index, item=dict(item))
        self._item = None

    def _part_event(self, what: str) -> Event:
        assert self._item is not None
        part = dict(self._item["content"][0])
        place = self._place() | {"content_index": 0}
        return self._event(f"response.content_part.{what}", **place, part=part)

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self.output) - 1}

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _usage(self) -> dict[str, Any] | None:
        usage = self._totals.usage
        if usage is None:
            return None
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        }


def _new_item(kind: str) -> dict[str, Any]:
    if kind == "message":
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        own: dict[str, Any] = {"id": _id("msg"), "role": "assistant", "content": [part]}
    elif kind == "reasoning":
        part = {"type": "reasoning_text", "text": ""}
        own = {"id": _id("rs"), "summary": [], "content": [part]}
    else:
        own = {"id": _id("fc"), "call_id": "", "name": "", "arguments": ""}
    return {"type": kind, "status": "in_progress", **own}


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
