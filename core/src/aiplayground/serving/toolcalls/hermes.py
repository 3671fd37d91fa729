"""Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Sources: NousResearch's Hermes-Function-Calling; the chat templates of Qwen 2.5 and 3. Qwen 3 Coder
writes `<function=name><parameter=key>value</parameter></function>` in the same block, GLM 4 `name`
and then `<arg_key>key</arg_key><arg_value>value</arg_value>`; Seed writes as Qwen 3 Coder does,
between marks of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .blocks import Block, BlockReader
from .parts import Part, calls_of, decode, object_text, skip

OPEN, CLOSE = "<tool_call>", "</tool_call>"
SEED_OPEN, SEED_CLOSE = "<seed:tool_call>", "</seed:tool_call>"
FUNCTION_END = "</function>"
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)(?:</parameter>|\Z)", re.DOTALL)
_GLM = re.compile(r"\s*([\w.-]+)\s*((?:<arg_key>.*</arg_value>\s*)?)", re.DOTALL)
_GLM_PARAMETER = re.compile(
    r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL
)


class _ToolCall:
    last = ">"

    def __init__(
        self, types: Mapping[str, Mapping[str, Any]], opener: str = OPEN, closer: str = CLOSE
    ) -> None:
        self._types, self._open, self._close = types, opener, closer

    def end(self, raw: str) -> int | None:
        place = raw.find(self._close)
        return None if place < 0 else place + len(self._close)

    def parse(self, raw: str) -> list[Part] | None:
        body = raw.removeprefix(self._open).removesuffix(self._close).strip()
        if body.startswith("<function="):
            return self._functions(body)
        named = _GLM.fullmatch(body)
        if named is not None and named[1] in self._types:
            calls = self._call(named[1], _GLM_PARAMETER.findall(named[2]))
            return None if calls is None else [calls]
        found = decode(body, skip(body, 0))
        whole = found is not None and not body[found[1] :].strip()
        return calls_of(found[0]) if found is not None and whole else None

    def _functions(self, body: str) -> list[Part] | None:
        found = [self._function(*match.groups()) for match in _FUNCTION.finditer(body)]
        calls = [call for call in found if call is not None]
        return calls if calls and len(calls) == len(found) else None

    def _function(self, name: str, body: str) -> Part | None:
        return self._call(name, _PARAMETER.findall(body))

    def _call(self, name: str, given: Sequence[tuple[str, str]]) -> Part | None:
        types = self._types.get(name, {})
        arguments = {key.strip(): _value(value, types.get(key.strip())) for key, value in given}
        text = object_text(arguments)
        return None if text is None else Part("call", text, name)


def _value(text: str, schema: Any) -> Any:
    """Read a parameter: a text where the schema says so, else JSON where it is some."""
    text = text.removeprefix("\n").removesuffix("\n")
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    found = decode(text)
    return found[0] if found is not None and found[1] == len(text) else text


class _Function(_ToolCall):
    """A call without a mark around it, its arguments as parameters or as JSON."""

    def parse(self, raw: str) -> list[Part] | None:
        match = _FUNCTION.fullmatch(raw)
        if match is None or match[1] not in self._types:
            return None
        found = decode(match[2], skip(match[2], 0))
        if found is None:
            return None if _PARAMETER.sub("", match[2]).strip() else self._functions(raw)
        text = object_text(found[0]) if not match[2][found[1] :].strip() else None
        return None if text is None else [Part("call", text, match[1])]


def function_block(tools: Mapping[str, Mapping[str, Any]]) -> Block:
    """Return how `<function=name>…</function>` is read where nothing stands around it."""
    return _Function(tools, closer=FUNCTION_END)


def blocks(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Block]:
    """Return how blocks are read, by the mark that opens each."""
    return {OPEN: _ToolCall(tools), SEED_OPEN: _ToolCall(tools, SEED_OPEN, SEED_CLOSE)}


def reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader; `tools` maps each tool to its parameters' schemas by name."""
    return BlockReader(blocks(tools))
