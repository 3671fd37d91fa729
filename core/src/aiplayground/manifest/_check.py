"""One table of a manifest while it is read: keys are taken out of it, what is left is unknown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiplayground.errors import suggest

Key = tuple[str, ...]

_WORDS: Mapping[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Table:
    """A table at `key` of a file; all tables of one file share `problems`, sentences with places.

    `text`: the file's, to find lines in.
    """

    def __init__(
        self,
        file: Path,
        text: str,
        values: Mapping[str, Any],
        key: Key = (),
        problems: list[str] | None = None,
    ) -> None:
        self.file = file
        self.key = key
        self.problems: list[str] = [] if problems is None else problems
        self._text = text
        self._values = dict(values)
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def problem(self, what: str, *key: str, near: object = None) -> None:
        """Note what is wrong at a key; `near` is what the value has in it, for the line."""
        line = self._line((*self.key, *key), near)
        place = f"{self.file}, line {line}" if line else str(self.file)
        self.problems.append(f"{place}: {what}")

    def below(self, name: str, values: Mapping[str, Any]) -> Table:
        """Return the table under a key."""
        return Table(self.file, self._text, values, (*self.key, name), self.problems)

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """Return a value of this type; `default` where there is none, or a wrong one."""
        self._known.append(name)
        value = self._values.get(name)
        if value is None:
            return default
        if is_a(value, kind):
            return float(value) if kind is float else value
        self.problem(f"{self._quoted(name)} must be {_WORDS[kind]}, not {shown(value)}.", name)
        return default

    def take_any(self, name: str) -> Any:
        """Return a value of any type, None where there is none."""
        self._known.append(name)
        return self._values.get(name)

    def take_texts(self, name: str) -> list[str] | None:
        """Return a list of texts."""
        found = self.take(name, list)
        wrong = [each for each in found or () if not isinstance(each, str)]
        for each in wrong:
            what = f"{self._quoted(name)} must hold texts in quotes, not {shown(each)}."
            self.problem(what, name, near=each)
        return None if found is None or wrong else found

    def take_word(self, name: str, words: Collection[str], default: str) -> str:
        """Return one of some words."""
        word = self.take(name, str, default)
        return str(word) if self.is_known(word, words, name) else default

    def is_known(self, word: str, words: Collection[str], name: str) -> bool:
        """Note it if a word of a value is none of those that there are."""
        if word in words:
            return True
        hint = suggest(word, words) or f" There is: {', '.join(sorted(words))}."
        self.problem(f"{self._quoted(name)} has no '{word}'.{hint}", name, near=word)
        return False

    def no_others(self) -> None:
        """Note the keys that nobody asked for."""
        for name in self._values:
            if name not in self._known:
                hint = suggest(name, self._known) or f" There is: {', '.join(self._known)}."
                self.problem(f"there is no key {self._quoted(name)}.{hint}", name)

    def _quoted(self, name: str) -> str:
        return f"'{'.'.join((*self.key, name))}'"

    def _line(self, key: Key, near: object) -> int | None:
        # Imported here: it costs pydantic, which reading a good file must not.
        from aiplayground.settings._text import line_of

        line = line_of(self._text, key)
        if line is None or near is None:
            return line
        # A list may go on for several lines: the one that has it in quotes.
        lines = self._text.split("\n")[line - 1 :]
        found = (number for number, each in enumerate(lines, line) if str(near) in each)
        return next(found, line)


def is_a(value: object, kind: type) -> bool:
    """Whether a value of TOML has a type; a whole number is a number, a boolean is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def shown(value: object) -> str:
    """Return a value for a message."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 else f"{text[:60]}…"
    return f'"{text}"' if isinstance(value, str) else text
