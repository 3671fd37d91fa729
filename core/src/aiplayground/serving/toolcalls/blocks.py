"""The reader for families that write calls in marked blocks, between or instead of text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from .parts import SPACE, Part, find_first, overlap, skip, text_parts


class Block(Protocol):
    """How one kind of block is written. `last`: characters, with one of which any block ends."""

    last: str

    def end(self, raw: str) -> int | None:
        """Return where the block that begins `raw` ends, or None while it has not ended."""

    def parse(self, raw: str) -> list[Part] | None:
        """Return the calls in a block, its marks included, or None if it holds none."""


class _Nothing:
    """A mark that says nothing by itself."""

    def __init__(self, mark: str) -> None:
        self.last = mark[-1]
        self._mark = mark

    def end(self, raw: str) -> int | None:
        return len(self._mark)

    def parse(self, raw: str) -> list[Part] | None:
        return []


class BlockReader:
    """Finds blocks in a stream of text.

    `blocks` by the mark that opens each; `first` opens a block only at the start of the answer,
    or right after another call: it is no mark, but how some models begin a bare call. White space
    around calls is dropped, and so are the marks of `drop`, once there was a call.
    """

    def __init__(
        self,
        blocks: Mapping[str, Block],
        first: Mapping[str, Block] | None = None,
        drop: Collection[str] = (),
    ) -> None:
        self._blocks = {**blocks, **{mark: _Nothing(mark) for mark in drop}}
        self._first = first or {}
        self._held = ""
        self._block: Block | None = None
        self._begin = bool(self._first)
        self._called = False
        self._space = ""

    def feed(self, text: str) -> list[Part]:
        """Take in more text; return what is certain now."""
        self._held += text
        if self._block is not None and not any(mark in text for mark in self._block.last):
            return []  # looking for the end at each token would cost the square of its length
        parts: list[Part] = []
        while (step := self._step()) is not None:
            parts += step
        return parts

    def finish(self) -> list[Part]:
        """Return what was held back: a block that was cut short may still be a call."""
        parts: list[Part] = []
        if self._block is not None:
            parts = self._close(self._held)
            self._held = ""
        if self._begin and self._called and not self._held.strip(SPACE + ";"):
            self._held = ""
        parts += self._text(self._held)
        self._held = ""
        return parts if self._called else parts + text_parts(self._space)

    def _step(self) -> list[Part] | None:
        """Advance by one block or text; None when more text is needed."""
        if self._block is not None:
            end = self._block.end(self._held)
            if end is None:
                return None
            raw, self._held = self._held[:end], self._held[end:]
            return self._close(raw)
        if self._begin:
            return self._look_at_start()
        return self._look()

    def _look_at_start(self) -> list[Part] | None:
        start = skip(self._held, 0, SPACE + ";" if self._called else SPACE)
        rest = self._held[start:]
        marks = {**self._blocks, **self._first}
        opener = next((mark for mark in marks if rest.startswith(mark)), None)
        if opener is not None:
            self._held, self._block = rest, marks[opener]
            return []
        if not any(mark.startswith(rest) for mark in marks):
            self._begin = False
            return []
        return None

    def _look(self) -> list[Part] | None:
        found = find_first(self._held, self._blocks)
        if found is not None:
            place, opener = found
            self._block = self._blocks[opener]
            before, self._held = self._held[:place], self._held[place:]
            return self._text(before)
        keep = overlap(self._held, self._blocks)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return self._text(certain) or None

    def _close(self, raw: str) -> list[Part]:
        calls = self._block.parse(raw) if self._block else None
        self._block = None
        self._begin = bool(calls and self._first)
        if calls is None or not (calls or self._called):
            return self._text(raw)
        self._called, self._space = True, ""
        return calls

    def _text(self, text: str) -> list[Part]:
        # White space is held back: before a call, or after the last one, it means nothing.
        text = self._space + text
        kept = text.rstrip(SPACE)
        self._space = text[len(kept) :]
        return text_parts(kept)
