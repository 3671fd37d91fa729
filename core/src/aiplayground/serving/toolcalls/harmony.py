"""GPT-OSS's harmony format: messages on channels.

`<|channel|>analysis<|message|>…<|end|>` is reasoning, `final` the answer, and a message on any
channel that is addressed `to=functions.name` a call. Source: OpenAI's "Harmony response format".
"""

from __future__ import annotations

import re
from typing import Literal

from .parts import Part, decode, find_first, object_text, overlap, skip, text_parts

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN = "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKS = (START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS)
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_HEADER = (START, CHANNEL, " to=")

_Kind = Literal["text", "reasoning", "call"]


class HarmonyReader:
    """The prompt ends with `<|start|>assistant`, so the answer begins within a header.

    An answer that does not begin as a header is text: a grammar may have left it no choice.
    """

    def __init__(self, *, calls: bool) -> None:
        self._calls = calls
        self._held = ""
        self._state: Literal["start", "header", "body"] = "start"
        self._kind: _Kind = "text"
        self._header = ""
        self._name = ""

    def feed(self, text: str) -> list[Part]:
        """Take in more text; return what is certain now."""
        self._held += text
        parts: list[Part] = []
        while (step := self._step()) is not None:
            parts += step
        return parts

    def finish(self) -> list[Part]:
        """Return what was held back: the last message has no end mark, since it ends the answer."""
        held, self._held = self._held, ""
        if self._state == "header":
            return []  # a header without its message says nothing
        return self._close(held) if self._state == "body" else text_parts(held)

    def _step(self) -> list[Part] | None:
        if self._state == "start":
            return self._begin()
        return self._read_header() if self._state == "header" else self._read_body()

    def _begin(self) -> list[Part] | None:
        if self._held.startswith(_HEADER):
            self._state = "header"
        elif any(mark.startswith(self._held) for mark in _HEADER):
            return None
        else:
            self._state, self._kind = "body", "text"
        return []

    def _read_header(self) -> list[Part] | None:
        place = self._held.find(MESSAGE)
        if place < 0:
            return None
        self._header = self._held[:place] + MESSAGE
        self._held = self._held[place + len(MESSAGE) :]
        channel = _CHANNEL.search(self._header)
        recipient = _RECIPIENT.search(self._header)
        self._kind = "reasoning" if channel and channel[1] == "analysis" else "text"
        self._name = ""
        if recipient is not None:
            self._kind, self._name = "call", recipient[1]
        self._state = "body"
        return []

    def _read_body(self) -> list[Part] | None:
        found = find_first(self._held, (*ENDS, START))
        if found is not None:
            body = self._held[: found[0]]
            self._held = self._held[found[0] + len(found[1]) :]
            self._state = "header"
            return self._close(body)
        if self._kind == "call":
            return None
        keep = overlap(self._held, (*ENDS, START))
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return [Part(self._kind, certain)] if certain else None

    def _close(self, body: str) -> list[Part]:
        if self._kind != "call":
            return [Part(self._kind, body)] if body else []
        found = decode(body, skip(body, 0))
        text = object_text(found[0]) if found and self._calls else None
        return text_parts(body) if text is None else [Part("call", text, self._name)]
