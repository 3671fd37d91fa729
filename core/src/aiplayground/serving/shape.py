"""From a model's text to the chunks of an answer: reasoning and tool calls separated.

An engine passes what the model writes, markers included, through `shaped`; it has the prompt, and
so knows whether that already opened the reasoning.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiplayground.types import ChatChunk, FinishReason

from .formats import is_constrained
from .toolcalls import Dialect, Part, Reader
from .tools import is_forced, tools_offered

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest


class _Choice:
    """One of the answers to a request."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.calls = 0


class Shaper:
    """Shapes the answers to one request: the one that the client sent, before `tools.asked`."""

    def __init__(self, dialect: Dialect, request: ChatRequest) -> None:
        self._dialect = dialect
        self._tools = tools_offered(request)
        self._forced = is_forced(request)
        self._constrained = is_constrained(request)
        self._opened = False
        self._one_call = request.parallel_tool_calls is False
        self._choices: dict[int, _Choice] = {}

    def begin(self, prompt: str) -> None:
        """Say which text the model continues. Called before the first chunk, from any thread."""
        # A grammar leaves no room for reasoning, whatever the prompt began.
        self._opened = self._dialect.opened(prompt) and not self._constrained

    def take(self, chunk: ChatChunk) -> ChatChunk | None:
        """Return what a chunk lets out, or None if that is nothing."""
        choice = self._choice(chunk.index)
        parts = choice.reader.feed(chunk.text) if chunk.text else []
        if chunk.finish_reason is not None:
            parts += choice.reader.finish()
        if not choice.calls and _is_text(parts, chunk.text):
            return None if _is_empty(chunk) else chunk
        calls = self._calls(choice, [part for part in parts if part.kind == "call"])
        ended: FinishReason | None = (
            "tool_calls" if chunk.finish_reason == "stop" and choice.calls else None
        )
        shaped = ChatChunk(
            index=chunk.index,
            text=_joined(parts, "text"),
            reasoning=chunk.reasoning + _joined(parts, "reasoning"),
            tool_calls=calls or chunk.tool_calls,
            finish_reason=ended or chunk.finish_reason,
            usage=chunk.usage,
            model=chunk.model,
            logprobs=chunk.logprobs,
        )
        return None if _is_empty(shaped) else shaped

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            reader = self._dialect.reader(self._tools, opened=self._opened, forced=self._forced)
            choice = self._choices[index] = _Choice(reader)
        return choice

    def _calls(self, choice: _Choice, parts: Sequence[Part]) -> list[dict[str, Any]]:
        calls = []
        for part in parts:
            if not (self._one_call and choice.calls):
                calls.append(self._call(choice.calls, part))
                choice.calls += 1
        return calls

    def _call(self, index: int, part: Part) -> dict[str, Any]:
        return {
            "index": index,
            "id": self._dialect.call_id(secrets.token_hex(16)),
            "type": "function",
            "function": {"name": part.name, "arguments": part.text},
        }


def _is_empty(chunk: ChatChunk) -> bool:
    said = chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs
    return not said and chunk.finish_reason is None and chunk.usage is None


def _is_text(parts: Sequence[Part], text: str) -> bool:
    """Say whether the parts are the text as it came: mostly they are, and no copy is needed."""
    if len(parts) != 1:
        return not parts and not text
    return parts[0].kind == "text" and parts[0].text == text


def _joined(parts: Sequence[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.kind == kind)


async def shaped(
    chunks: AsyncGenerator[ChatChunk, None], shaper: Shaper
) -> AsyncGenerator[ChatChunk, None]:
    """Yield the chunks of the answer; closing it closes `chunks`."""
    async with aclosing(chunks):
        async for chunk in chunks:
            out = shaper.take(chunk)
            if out is not None:
                yield out
