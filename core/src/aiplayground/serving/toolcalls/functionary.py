"""Functionary: `>>>name` and a line of arguments (3.2), `<function=name>{…}</function>` (3.1).

In 3.2 each part of an answer names who it is for: `all` is the user. The prompt ends with `>>>`, so
the answer begins with a name. Sources: MeetKai's chat templates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from .blocks import BlockReader
from .hermes import function_block
from .parts import SPACE, Part, decode, object_text, overlap, skip, text_parts

MARK, EVERYONE = ">>>", "all"
OPEN = "<function="


def reader(tools: Mapping[str, Mapping[str, Any]]) -> BlockReader:
    """Return a reader for 3.1; `tools` maps each tool to its parameters' schemas by name."""
    return BlockReader({OPEN: function_block(tools)})


class RecipientReader:
    """Reads 3.2. A name that is neither a tool's nor `all` is text, and so is what follows."""

    def __init__(self, tools: Collection[str]) -> None:
        self._names = (EVERYONE, *tools)
        self._held = ""
        self._name = ""
        self._mark = ""  # the mark before the name, but the first: that is the prompt's
        self._state: Literal["name", "text", "call", "gap"] = "name"

    def feed(self, text: str) -> list[Part]:
        """Take in more text; return what is certain now."""
        self._held += text
        parts: list[Part] = []
        while (step := self._step()) is not None:
            parts += step
        return parts

    def finish(self) -> list[Part]:
        """Return what was held back."""
        held, self._held = self._held, ""
        if self._state == "call":
            held = f"{self._name}\n{held}"
        return text_parts(self._mark + held if self._state in ("name", "call") else held)

    def _step(self) -> list[Part] | None:
        if self._state == "name":
            return self._read_name()
        if self._state == "call":
            return self._read_call()
        return self._read_text() if self._state == "text" else self._read_gap()

    def _read_name(self) -> list[Part] | None:
        name, ended, rest = self._held.partition("\n")
        if not ended and any(each.startswith(name) for each in self._names):
            return None
        if not ended or name not in self._names:
            self._state = "text"
            return text_parts(self._mark)
        self._name, self._held = name, rest
        self._state = "text" if name == EVERYONE else "call"
        return []

    def _read_text(self) -> list[Part] | None:
        place = self._held.find(MARK)
        if place >= 0:
            before, self._held = self._held[:place], self._held[place + len(MARK) :]
            self._state, self._mark = "name", MARK
            return text_parts(before)
        keep = overlap(self._held, (MARK,))
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return text_parts(certain) or None

    def _read_call(self) -> list[Part] | None:
        start = skip(self._held, 0)
        if self._held[start : start + 1] in ("", "{"):
            found = decode(self._held, start)
            if found is None:
                return None
            text = object_text(found[0])
            if text is not None:
                self._held, self._state = self._held[found[1] :], "gap"
                return [Part("call", text, self._name)]
        self._state = "text"
        return text_parts(f"{self._mark}{self._name}\n")

    def _read_gap(self) -> list[Part] | None:
        self._held = self._held.lstrip(SPACE)
        if self._held:
            self._state = "text"
        return [] if self._held else None
