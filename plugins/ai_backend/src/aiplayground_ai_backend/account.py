"""What one answer cost and how long its first piece took, found while its bytes pass."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from .tally import tokens_at_end, tokens_in

if TYPE_CHECKING:
    from aiplayground.types import Usage

    from .exchange import Exchange
    from .metrics import Metrics

_KEPT = 4
"""Pieces at the end of a stream that are looked at for the usage; a small price at each piece."""

_LOOKED_AT = 8192
"""Bytes of each of them: an answer may come in one."""


class Account:
    """The figures of one request to a backend, for metrics and access log."""

    def __init__(self, exchange: Exchange, metrics: Metrics, service: str, model: str) -> None:
        self._facts = exchange.facts
        self._metrics = metrics
        self._what = (service, model)
        self._began: float | None = time.monotonic()
        self._last: deque[bytes] = deque(maxlen=_KEPT)
        self._events = 0
        self._facts |= {"backend": service, "model": model}
        metrics.count_answer(service, model)

    def saw(self, data: bytes) -> None:
        """Look at a piece of a stream that passes."""
        if self._began is not None and not data.startswith(b":"):
            self.first()
            self._events -= b'"role"' in data  # the opening, which holds nothing
        self._events += data.count(b"\n\n")
        self._last.append(data[-_LOOKED_AT:])

    def first(self) -> None:
        """Note that the answer has begun."""
        if self._began is not None:
            seconds, self._began = time.monotonic() - self._began, None
            self._metrics.add_first(*self._what, seconds)
            self._facts["first_ms"] = round(seconds * 1000, 1)

    def tail(self) -> bytes:
        """Return the end of the stream."""
        return b"".join(self._last)

    def ended(self) -> None:
        """Look for the tokens in the last lines of a stream."""
        self.first()
        told = tokens_at_end(self.tail())
        if told is None:
            self._metrics.count_untold(*self._what)
        else:
            self._add(*told)

    def broke_off(self) -> None:
        """Count a stream that did not come to its end by what was sent of it."""
        if self._began is None:
            self.cut(max(0, self._events))

    def cut(self, pieces: int) -> None:
        """Count an answer that did not come to its end: a token a piece, the prompt is unknown.

        That is what engines send, but for the few that put several tokens into a piece.
        """
        self._metrics.count_cut(*self._what)
        self._metrics.add_tokens(*self._what, 0, pieces)
        self._facts |= {"completion_tokens": pieces, "cut": True}

    def whole(self, body: bytes) -> None:
        """Take the usage from a JSON document, if it has one."""
        self.first()
        told = tokens_in(body) if b'"usage"' in body else None
        if told is not None:
            self._add(*told)

    def usage(self, usage: Usage | None) -> None:
        """Take the usage that a backend told."""
        if usage is not None:
            self._add(usage.prompt_tokens, usage.completion_tokens)

    def _add(self, prompt: int, completion: int) -> None:
        self._facts |= {"prompt_tokens": prompt, "completion_tokens": completion}
        self._metrics.add_tokens(*self._what, prompt, completion)
