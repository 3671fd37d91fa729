"""From token bytes to text that can be sent: pure, and tested without a model."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Utf8Stream:
    """Decodes bytes as they come and holds back what may become a character.

    Bytes that can no longer be part of one turn into U+FFFD; a character that is merely cut in
    two by a token's end does not.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cut = False

    def feed(self, data: bytes) -> str:
        """Return the text that is certain now."""
        if not self._cut and data.isascii():
            return data.decode("ascii")  # nearly always, and much faster
        text = self._decoder.decode(data)
        self._cut = bool(self._decoder.getstate()[0])
        return text


class StopMatcher:
    """Finds the first stop text in a stream, and never lets a part of one out.

    `feed` returns what can be sent. After a match `stopped` is true, and the stop text and all
    that follows it are gone.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take in more text; return what cannot belong to a stop text any more."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        held = self._held + text
        found = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return what was held back, at the end of an answer that no stop text ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0 and not stop.startswith(text[start:]):
        start = text.find(stop[0], start + 1)
    return len(text) - start if start >= 0 else 0


class AnswerText:
    """Token bytes in, text to send out: the two above, one after the other."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._utf8 = Utf8Stream()
        self._stops = StopMatcher(stops)
        self._stoppable = any(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop text has appeared."""
        return self._stops.stopped

    def feed(self, piece: bytes) -> str:
        """Return what the bytes of one more token let out."""
        text = self._utf8.feed(piece)
        return self._stops.feed(text) if self._stoppable else text

    def flush(self) -> str:
        """Return what is left at the end; half a character is dropped."""
        return self._stops.flush()
