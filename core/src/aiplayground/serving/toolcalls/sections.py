"""DeepSeek and Kimi: a marked section of calls, each of them with marks of its own.

DeepSeek V3 and R1 write `function`, a separator, the name, and the arguments in a fence of
Markdown; V3.1 the name, the separator, the arguments. Kimi K2 writes `functions.name:0` before the
arguments. Sources: their chat templates. DeepSeek's distilled models often leave out the mark that
opens the section, or write it with underscores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import hermes
from .blocks import Block, BlockReader
from .parts import Part, decode, object_text, skip

_FENCE = re.compile(r"([^\n]*)\n\s*(?:```(?:json)?)?(.*?)(?:```\s*)?", re.DOTALL)
_KIMI = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")


class _Marks(NamedTuple):
    opener: str
    closer: str
    begin: str
    separator: str
    end: str


def _deepseek_marks(space: str) -> _Marks:
    words = ("tool calls begin", "tool calls end", "tool call begin", "tool sep", "tool call end")
    return _Marks(*(f"<\uff5c{each.replace(' ', space)}\uff5c>" for each in words))


_DEEPSEEK, _UNDERSCORED = _deepseek_marks("\u2581"), _deepseek_marks("_")
_K2 = _Marks(
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
DEEPSEEK, KIMI = tuple(_DEEPSEEK), tuple(_K2)


class _Section:
    """A section of calls; where its opening mark is left out, `closer` is the end of one call."""

    def __init__(self, marks: _Marks, named: Callable[[str, str], tuple[str, str] | None]) -> None:
        self._marks, self._named = marks, named
        self.last = marks.closer[-1]

    def end(self, raw: str) -> int | None:
        place = raw.find(self._marks.closer)
        return None if place < 0 else place + len(self._marks.closer)

    def parse(self, raw: str) -> list[Part] | None:
        pieces = raw.split(self._marks.begin)[1:]
        calls = [self._call(piece) for piece in pieces]
        found = [call for call in calls if call is not None]
        return found if found and len(found) == len(calls) else None

    def _call(self, piece: str) -> Part | None:
        head, separator, rest = piece.partition(self._marks.separator)
        body = rest.partition(self._marks.end)[0]
        named = self._named(head.strip(), body.strip()) if separator else None
        if named is None or not named[0]:
            return None
        found = decode(named[1], skip(named[1], 0))
        text = object_text(found[0]) if found and not named[1][found[1] :].strip() else None
        return None if text is None else Part("call", text, named[0])


def _deepseek(head: str, body: str) -> tuple[str, str] | None:
    if body.startswith("{"):
        return head, body
    fenced = _FENCE.fullmatch(body)
    return (fenced[1].strip(), fenced[2].strip()) if fenced else None


def _kimi(head: str, body: str) -> tuple[str, str] | None:
    named = _KIMI.fullmatch(head)
    return (named[1], body) if named else None


def deepseek_reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader for DeepSeek's forms, and for Hermes', which a template may not know."""
    blocks: dict[str, Block] = {**hermes.blocks(tools)}
    for marks in (_DEEPSEEK, _UNDERSCORED):
        blocks[marks.opener] = _Section(marks, _deepseek)
        bare = marks._replace(closer=marks.end)
        blocks[marks.begin] = _Section(bare, _deepseek)
    return BlockReader(blocks, drop=(_DEEPSEEK.closer, _UNDERSCORED.closer))


def kimi_reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader for Kimi's form, and for Hermes', which a template may not know."""
    return BlockReader({**hermes.blocks(tools), _K2.opener: _Section(_K2, _kimi)})
