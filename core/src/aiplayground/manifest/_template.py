"""Placeholders: found in a text, and filled with values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ._schema import Choice, Group, Part

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_LITERAL = {"{{": "{", "}}": "}"}


def places(text: str) -> Iterator[str]:
    """Yield the names of a text's placeholders; `{{` and `}}` stand for the braces themselves."""
    for found in _PLACE.finditer(text):
        if found.group() not in _LITERAL:
            yield found.group(1)


def alone(text: str) -> str | None:
    """Return the placeholder that a text consists of, if it is one."""
    found = _PLACE.fullmatch(text)
    return found.group(1) if found else None


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Return a text with its placeholders filled."""

    def value(found: re.Match[str]) -> str:
        whole = found.group()
        return _LITERAL.get(whole) or written(values[found.group(1)])

    return _PLACE.sub(value, text)


def written(value: Any) -> str:
    """Write a value as a command line takes it."""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def has_value(value: Any) -> bool:
    """Whether a placeholder's value is one: not unset, and no empty text or list."""
    return value is not None and value not in ("", ())


def arguments(parts: Iterable[Part], values: Mapping[str, Any]) -> list[str]:
    """Return the command line."""
    found: list[str] = []
    for part in parts:
        for text in _chosen(part, values):
            place = alone(text)
            value = values.get(place) if place else None
            if isinstance(value, tuple):
                found += map(written, value)
            else:
                found.append(fill(text, values))
    return found


def _chosen(part: Part, values: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(part, str):
        return (part,)
    if isinstance(part, Choice):
        return part.then if values[part.condition] else part.otherwise
    return part.texts if is_filled(part, values) else ()


def is_filled(group: Group, values: Mapping[str, Any]) -> bool:
    """Whether all placeholders of a group have a value."""
    return all(has_value(values[place]) for text in group.texts for place in places(text))


def environment(env: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables whose placeholders all have a value."""
    return {
        name: fill(text, values) for name, text in env.items() if is_filled(Group((text,)), values)
    }


def folder(cwd: str | None, values: Mapping[str, Any]) -> Path | None:
    """Return the folder to run in, if one is named."""
    return Path(fill(cwd, values)).expanduser() if cwd else None
