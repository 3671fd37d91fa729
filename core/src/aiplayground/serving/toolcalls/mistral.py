"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, later `[TOOL_CALLS]name[ARGS]{…}`.

Sources: mistral-common's instruct tokenizers, versions 3 to 13.
"""

from __future__ import annotations

import re

from .blocks import BlockReader
from .parts import Part, calls_of, decode, json_end, object_text, skip

OPEN = "[TOOL_CALLS]"
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(?=\{)")


class _ToolCalls:
    last = "}]"

    def end(self, raw: str) -> int | None:
        start = skip(raw, len(OPEN))
        if raw[start : start + 1] in ("[", "{"):
            return json_end(raw, start)
        named = _NAMED.match(raw, len(OPEN))
        return None if named is None else json_end(raw, named.end())

    def parse(self, raw: str) -> list[Part] | None:
        start = skip(raw, len(OPEN))
        named = _NAMED.match(raw, len(OPEN))
        if named is not None:
            found = decode(raw, named.end())
            text = object_text(found[0]) if found else None
            return None if text is None else [Part("call", text, named[1])]
        found = decode(raw, start)
        return None if found is None else calls_of(found[0])


def reader() -> BlockReader:
    """Return a reader."""
    return BlockReader({OPEN: _ToolCalls()})
