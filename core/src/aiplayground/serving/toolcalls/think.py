"""Reasoning between marks, as `<think>…</think>`, before the answer itself."""

from __future__ import annotations

from typing import Literal

from .parts import SPACE, Part, Reader, overlap

TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
"""The marks that are known, opening and closing: Qwen, DeepSeek and others; Magistral; Seed;
Command; Gemma 4."""


class ThinkReader:
    """Separates reasoning from the answer, which another reader takes on.

    `opened`: the prompt already wrote the opening mark. White space at the borders is dropped.
    """

    def __init__(self, tags: tuple[str, str], inner: Reader, *, opened: bool = False) -> None:
        self._open, self._close = tags
        self._inner = inner
        self._state: Literal["start", "reasoning", "gap", "answer"] = "start"
        self._held = ""
        self._fresh = True
        if opened:
            self._state = "reasoning"

    def feed(self, text: str) -> list[Part]:
        """Take in more text; return what is certain now."""
        if self._state == "answer":
            return self._inner.feed(text)
        self._held += text
        parts: list[Part] = []
        if self._state == "start":
            self._begin()
        if self._state == "reasoning":
            parts += self._reason()
        if self._state == "gap":
            self._held = self._held.lstrip(SPACE)
            self._state = "answer" if self._held else "gap"
        if self._state == "answer":
            parts += self._answer()
        return parts

    def finish(self) -> list[Part]:
        """Return what was held back; reasoning that was cut short stays reasoning."""
        held, self._held = self._held, ""
        if self._state == "reasoning":
            return self._thought(held.strip(SPACE) if self._fresh else held.rstrip(SPACE))
        parts = self._inner.feed(held) if held else []
        return parts + self._inner.finish()

    def _begin(self) -> None:
        rest = self._held.lstrip(SPACE)
        if rest.startswith(self._open):
            self._state, self._held = "reasoning", rest[len(self._open) :]
        elif not self._open.startswith(rest):
            self._state = "answer"

    def _reason(self) -> list[Part]:
        if self._fresh:
            self._held = self._held.lstrip(SPACE)
        place = self._held.find(self._close)
        if place >= 0:
            thought = self._held[:place].rstrip(SPACE)
            self._held = self._held[place + len(self._close) :]
            self._state = "gap"
            return self._thought(thought)
        keep = overlap(self._held, (self._close,))
        certain = self._held[: len(self._held) - keep].rstrip(SPACE)
        self._held = self._held[len(certain) :]
        return self._thought(certain)

    def _thought(self, text: str) -> list[Part]:
        self._fresh = self._fresh and not text
        return [Part("reasoning", text)] if text else []

    def _answer(self) -> list[Part]:
        held, self._held = self._held, ""
        return self._inner.feed(held) if held else []
