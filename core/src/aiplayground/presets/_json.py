"""JSON in which the line of everything can be told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')
_DECODER = json.JSONDecoder()


class NotJson(ValueError):
    """The text is not JSON; `line` and `column` count from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(reason)
        self.reason, self.line, self.column = reason, line, column


def parse(text: str) -> Any:
    """Return what a text holds; raises `NotJson`."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, error.lineno, error.colno) from error
    except RecursionError as error:
        raise NotJson("it is nested too deeply", 1, 1) from error
    except _Twice as error:
        reason = f"the key '{error}' stands there twice"
        raise NotJson(reason, *_second(text, str(error))) from error
    except ValueError as error:
        found = next(each for each in _CONSTANT.finditer(text) if each[1])
        raise NotJson(str(error), *position(text, found.start())) from error


class _Twice(ValueError):
    """An object has a key twice."""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _second(text: str, key: str) -> tuple[int, int]:
    """Return where a key stands for the second time in an object of the text."""
    seen: dict[int, int] = {}
    for start, owner in _keys(text, key):
        if owner in seen:
            return position(text, start)
        seen[owner] = start
    return 1, 1


def _keys(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Yield where a key stands, and where the object begins that it is one of."""
    open_: list[int] = []
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text):
        if token[0] in "{[":
            open_.append(token.start())
        elif token[0] in "}]":
            open_.pop()
        elif text[_skip(text, token.end())] == ":" and json.loads(token[0]) == wanted:
            yield token.start(), open_[-1]


def position(text: str, index: int) -> tuple[int, int]:
    """Return line and column of an index, both from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line of the key (or the entry of a list) at a path of valid JSON.

    Where the path ends early, since something is missing, it is the line of the last that is there.
    """
    index = at = _skip(text, 0)
    for part in path:
        found = next((each for each in _members(text, index) if each[0] == part), None)
        if found is None:
            break
        _, at, index = found
    return position(text, at)[0]


def _members(text: str, index: int) -> Iterator[tuple[str | int, int, int]]:
    """Yield each member of the object or list at an index: key, where it begins, its value."""
    opening, count = text[index], 0
    if opening not in "{[":
        return
    index = _skip(text, index + 1)
    while text[index] not in "}]":
        start, key = index, count
        name: str | int = key
        if opening == "{":
            name, index = _DECODER.raw_decode(text, index)
            index = _skip(text, _skip(text, index) + 1)
        yield name, start, index
        index = _skip(text, _DECODER.raw_decode(text, index)[1])
        if text[index] == ",":
            index = _skip(text, index + 1)
        count += 1


def _skip(text: str, index: int) -> int:
    found = _SPACE.match(text, index)
    return found.end() if found else index
