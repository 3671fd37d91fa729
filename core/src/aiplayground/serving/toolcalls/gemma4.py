"""Gemma 4: `<|tool_call>call:name{city:<|"|>Paris<|"|>,days:3}<tool_call|>`.

Arguments are JSON but for two things: texts stand between marks, unescaped, and keys without any.
Source: its chat template.
"""

from __future__ import annotations

import json
import re

from .blocks import BlockReader
from .parts import Part, decode, object_text

OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
MARKS = (OPEN, CLOSE, QUOTE, "<|channel>", "<channel|>")
_CALL = re.compile(r"\s*call:\s*([\w.-]+)\s*(?=\{)")
_KEY = re.compile(r"([{,]\s*)([\w.$-]+)(\s*:)")


class _ToolCall:
    last = ">"

    def end(self, raw: str) -> int | None:
        place = raw.find(CLOSE)
        return None if place < 0 else place + len(CLOSE)

    def parse(self, raw: str) -> list[Part] | None:
        body = raw.removeprefix(OPEN).removesuffix(CLOSE)
        named = _CALL.match(body)
        if named is None:
            return None
        source = _as_json(body[named.end() :].strip())
        found = decode(source)
        text = object_text(found[0]) if found and found[1] == len(source) else None
        return None if text is None else [Part("call", text, named[1])]


def _as_json(body: str) -> str:
    """Write texts and keys as JSON does: every second piece between marks is a text."""
    pieces = body.split(QUOTE)
    for index, piece in enumerate(pieces):
        pieces[index] = json.dumps(piece) if index % 2 else _KEY.sub(r'\1"\2"\3', piece)
    return "".join(pieces)


def reader() -> BlockReader:
    """Return a reader."""
    return BlockReader({OPEN: _ToolCall()})
