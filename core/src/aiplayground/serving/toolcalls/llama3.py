"""Llama 3.1 to 3.3: a bare JSON object, or `<|python_tag|>` before JSON or `tool.call(a="b")`.

Source: Meta's "Model cards and prompt formats" for Llama 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .blocks import BlockReader
from .parts import Part, call_of, decode, json_end, skip
from .pythonic import parse_calls

OPEN = "<|python_tag|>"


class _Bare:
    """A JSON object: a call only if it names one of the tools, since it may be the answer."""

    last = "}"

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def end(self, raw: str) -> int | None:
        return json_end(raw)

    def parse(self, raw: str) -> list[Part] | None:
        found = decode(raw)
        call = call_of(found[0], self._names) if found and "name" in found[0] else None
        return None if call is None else [call]


class _Tagged:
    last = "}"

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools

    def end(self, raw: str) -> int | None:
        start = skip(raw, len(OPEN))
        return json_end(raw, start) if raw[start : start + 1] == "{" else None

    def parse(self, raw: str) -> list[Part] | None:
        start = skip(raw, len(OPEN))
        found = decode(raw, start) if raw[start : start + 1] == "{" else None
        if found is None:
            return parse_calls(raw[start:], self._tools)
        call = call_of(found[0])
        return None if call is None else [call]


def reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader; `tools` maps each tool to its parameters' schemas by name."""
    return BlockReader({OPEN: _Tagged(tools)}, first={"{": _Bare(tools)})
