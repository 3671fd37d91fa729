"""The parts of an answer, and the small things that every family's reader needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, Literal, NamedTuple, Protocol

SPACE = " \t\r\n"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


# Not strict: models write line ends within texts as they are, rather than as an escape.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, strict=False)


class Part(NamedTuple):
    """A piece of an answer.

    `text` is the text, the reasoning, or a call's arguments as a JSON object; `name` is the tool.
    """

    kind: Literal["text", "reasoning", "call"]
    text: str
    name: str = ""


class Reader(Protocol):
    """Takes an answer's text as it comes."""

    def feed(self, text: str) -> list[Part]:
        """Take in more text; return what is certain now."""

    def finish(self) -> list[Part]:
        """Return what was held back. Called once, when the answer has ended."""


class PlainReader:
    """For models that mark nothing: text is text."""

    def feed(self, text: str) -> list[Part]:
        """Return the text."""
        return text_parts(text)

    def finish(self) -> list[Part]:
        """Return nothing: nothing is held back."""
        return []


def text_parts(text: str) -> list[Part]:
    """Return the text as parts: none if it is empty."""
    return [Part("text", text)] if text else []


def overlap(text: str, marks: Iterable[str]) -> int:
    """Return how many characters at the end of `text` may begin one of the marks."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    lengths = range(min(len(text), longest), 0, -1)
    return next((n for n in lengths if any(mark.startswith(text[-n:]) for mark in marks)), 0)


def find_first(text: str, marks: Iterable[str]) -> tuple[int, str] | None:
    """Return where the first of the marks stands in the text, and which; the longest wins."""
    found = [(place, -len(mark), mark) for mark in marks if (place := text.find(mark)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


def json_end(text: str, start: int = 0) -> int | None:
    """Return where the object or list that begins at `start` ends, or None while it does not."""
    found = decode(text, start)
    return None if found is None else found[1]


def decode(text: str, start: int = 0) -> tuple[Any, int] | None:
    """Read one JSON value at `start`; return it and where it ends, or None if there is none."""
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def skip(text: str, start: int, characters: str = SPACE) -> int:
    """Return the first place from `start` on that is none of the characters."""
    while start < len(text) and text[start] in characters:
        start += 1
    return start


def call_of(value: Any, names: Collection[str] | None = None) -> Part | None:
    """Return the call that a JSON value describes, or None if it describes none.

    `names` are the tools that it may name; None for any. The families differ in whether they say
    `arguments` or `parameters`, `name` or `tool_name`; some write the arguments as a text, or put
    all of it into `function`.
    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    fields = inner if isinstance(inner, dict) else value
    name = fields.get("name", fields.get("tool_name"))
    arguments = _arguments(fields)
    if not isinstance(name, str) or not name or arguments is None:
        return None
    if names is not None and name not in names:
        return None
    return Part("call", arguments, name) if _is_text(name) else None


def _arguments(fields: dict[str, Any]) -> str | None:
    given = fields.get("arguments", fields.get("parameters"))
    if isinstance(given, str):
        found = decode(given, skip(given, 0))
        given = found[0] if found else None
    elif given is None and "arguments" not in fields and "parameters" not in fields:
        given = {}
    return object_text(given)


def object_text(value: Any) -> str | None:
    """Write a JSON object, or return None if the value is none."""
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # 1e999 is read as infinity, which JSON cannot hold
        return None
    # Half a surrogate pair can stand in JSON as an escape, but not in text.
    return text if text.isascii() or _is_text(text) else json.dumps(value)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def calls_of(values: Any, names: Collection[str] | None = None) -> list[Part] | None:
    """Return the calls that a list of JSON values describes; None unless each one does."""
    listed = values if isinstance(values, list) else [values]
    calls = [call_of(value, names) for value in listed]
    found = [call for call in calls if call is not None]
    return found if found and len(found) == len(calls) else None
