"""What one answer cost and how long its first piece took, found while its bytes pass."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any

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
        self._facts |= {"backend": service, "model": model}
        metrics.count_answer(service, model)

    def saw(self, data: bytes) -> None:
        """Look at a piece of a stream that passes."""
        if self._began is not None and not data.startswith(b":"):
            self.first()
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
        """Look for the usage in the last events of a stream."""
        self.first()
        tail = self.tail()
        found = tail.rfind(b'"usage"')
        if found < 0:
            return
        begin, end = tail.rfind(b"\n", 0, found) + 1, tail.find(b"\n", found)
        line = tail[begin : end if end >= 0 else None]
        if line.startswith(b"data:"):
            self.whole(line[5:])

    def whole(self, body: bytes) -> None:
        """Take the usage from a JSON document, if it has one."""
        if b'"usage"' not in body:
            return
        try:
            usage = json.loads(body).get("usage")
        except (ValueError, AttributeError):
            return  # the cut-off beginning of an event, or none of the OpenAI API
        if isinstance(usage, dict):
            self._add(usage.get("prompt_tokens"), usage.get("completion_tokens"))

    def usage(self, usage: Usage | None) -> None:
        """Take the usage that a backend told."""
        if usage is not None:
            self._add(usage.prompt_tokens, usage.completion_tokens)

    def _add(self, prompt: Any, completion: Any) -> None:
        counts = [each if isinstance(each, int) else 0 for each in (prompt, completion)]
        self._facts |= {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
        self._metrics.add_tokens(*self._what, *counts)
