"""Families that put a list of calls, as JSON or as Python, between two marks of their own.

Granite 3 and Phi 4 mini, LFM 2, Command R, Nemotron. Source: their chat templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import BlockReader
from .parts import Part, calls_of, decode, skip
from .pythonic import parse_calls

MARKS: Mapping[str, str] = {
    "<|tool_call|>": "<|/tool_call|>",
    "<|tool_call_start|>": "<|tool_call_end|>",
    "<|START_ACTION|>": "<|END_ACTION|>",
    "<TOOLCALL>": "</TOOLCALL>",
}
"""Closing marks by opening ones. Where a model leaves out the closing one, the end will do."""


class _Marked:
    def __init__(self, opener: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._opener, self._closer = opener, MARKS[opener]
        self._tools = tools
        self.last = self._closer[-1]

    def end(self, raw: str) -> int | None:
        place = raw.find(self._closer)
        return None if place < 0 else place + len(self._closer)

    def parse(self, raw: str) -> list[Part] | None:
        body = raw.removeprefix(self._opener).removesuffix(self._closer).strip()
        found = decode(body, skip(body, 0))
        if found is not None and not body[found[1] :].strip():
            return calls_of(found[0])
        return parse_calls(body, self._tools)


def reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader; `tools` maps each tool to its parameters' schemas by name."""
    return BlockReader({opener: _Marked(opener, tools) for opener in MARKS})
