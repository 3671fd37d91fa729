"""Wrapping a stream of text at words, for a terminal that would cut them at its edge."""

from __future__ import annotations

import unicodedata

TAB = 8


class Wrapper:
    """Takes text in pieces and gives it out in whole words, at most `width` columns to a line.

    A word is held back until it is complete, which is at most one line of text. Characters of
    scripts that are written without spaces (those two columns wide) are words of their own.
    """

    def __init__(self, width: int) -> None:
        self._width = max(width, 1)
        self._column = 0
        self._word = ""
        self._gap = ""
        self._cut = False

    def feed(self, text: str) -> str:
        """Take the next piece and return what can be shown now."""
        return "".join(self._take(character) for character in text)

    def flush(self) -> str:
        """Return what is held back: the text is over."""
        return self._place_word() + self._place_gap()

    def _take(self, character: str) -> str:
        if character not in "\n \t" and _columns(character) < 2:
            self._word += character
            # Longer than a line: it must be cut anyway, and the terminal does that.
            return self._place_word(cut=True) if len(self._word) >= self._width else ""
        shown = self._place_word()
        if character == "\n":
            self._column, self._gap = 0, ""
            return f"{shown}\n"
        if character in " \t":
            self._gap += character
            return shown
        self._word = character
        return shown + self._place_word()

    def _place_word(self, *, cut: bool = False) -> str:
        word, self._word = self._word, ""
        width = sum(map(_columns, word))
        goes_on, self._cut = self._cut, cut
        fits = self._column + self._gap_columns() + width <= self._width
        if not word or goes_on or fits or self._column == 0:
            shown = self._place_gap() + word if word else ""
        else:
            # The gap is where the line breaks.
            self._gap, self._column = "", 0
            shown = f"\n{word}"
        self._move(width)
        return shown

    def _move(self, columns: int) -> None:
        # A full line stays full: the terminal goes to the next one when something follows.
        column = self._column + columns
        self._column = (column - 1) % self._width + 1 if column else 0

    def _place_gap(self) -> str:
        self._move(self._gap_columns())
        gap, self._gap = self._gap, ""
        return gap

    def _gap_columns(self) -> int:
        column = self._column
        for character in self._gap:
            column += 1 if character == " " else TAB - column % TAB
        return column - self._column


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
