"""Gemma: a fenced block of Python calls (`tool_code`) or of JSON, or the JSON alone.

Source: Google's "Function calling with Gemma". Gemma's templates have no place for tools, so they
are described in the system's message (`serving.describe`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import BlockReader
from .parts import Part, calls_of, decode, json_end, skip
from .pythonic import parse_calls

FENCE = "```"
_WORDS = ("tool_code", "tool_call", "json", "python")


class _Fence:
    last = "`"

    def __init__(self, word: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._opener = FENCE + word
        self._tools = tools

    def end(self, raw: str) -> int | None:
        place = raw.find(FENCE, len(self._opener))
        return None if place < 0 else place + len(FENCE)

    def parse(self, raw: str) -> list[Part] | None:
        body = raw.removeprefix(self._opener).removesuffix(FENCE).strip()
        return _json_calls(body, self._tools) or parse_calls(body, self._tools)


class _Bare:
    last = "}]"

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools

    def end(self, raw: str) -> int | None:
        return json_end(raw)

    def parse(self, raw: str) -> list[Part] | None:
        return _json_calls(raw, self._tools)


def _json_calls(body: str, tools: Mapping[str, Mapping[str, Any]]) -> list[Part] | None:
    found = decode(body, skip(body, 0))
    if found is None or body[found[1] :].strip():
        return None
    return calls_of(found[0], tools)


def reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader; `tools` maps each tool to its parameters' schemas by name."""
    fences = {FENCE + word: _Fence(word, tools) for word in _WORDS}
    return BlockReader(fences, first={"{": _Bare(tools), "[{": _Bare(tools)})
