"""What a worker counts, in Prometheus's text format.

Source: Prometheus's "Exposition formats", version 0.0.4. Times are in seconds, sizes in tokens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

from .replies import Totals

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
PREFIX = "aiplayground_"

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of times to the first token, in seconds."""

CANCELLED = 499
"""The status under which a request counts whose client went away (nginx's)."""


class Metrics:
    """The counters of one worker."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens = {"prompt": 0, "cached_prompt": 0, "completion": 0}
        self._failed = 0
        self._first = [0] * (len(BUCKETS) + 1)
        self._first_sum = 0.0

    def count(self, path: str, status: int) -> None:
        """Count a request that was answered."""
        self._requests[path, status] += 1

    def add_usage(self, totals: Totals) -> None:
        """Count the tokens of an answer."""
        usage = totals.usage
        if usage is not None:
            self._tokens["prompt"] += usage.prompt_tokens
            self._tokens["completion"] += usage.completion_tokens
            self._tokens["cached_prompt"] += usage.cached_tokens or 0

    def add_failed(self) -> None:
        """Count an answer that an error ended."""
        self._failed += 1

    def add_first(self, seconds: float) -> None:
        """Count how long the first piece of an answer took."""
        place = next((n for n, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self._first[place] += 1
        self._first_sum += seconds

    def render(self, active: int, counters: Mapping[str, float]) -> str:
        """Return all of it; `counters` are the engine's own."""
        return "\n".join([*self._lines(active), *_engine_lines(counters), ""])

    def _lines(self, active: int) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests answered, by path and status.")
        for (path, status), value in sorted(self._requests.items()):
            yield f'{PREFIX}requests_total{{path="{path}",status="{status}"}} {value}'
        yield from _head("requests_active", "gauge", "Requests waiting or being worked on.")
        yield f"{PREFIX}requests_active {active}"
        yield from _head("answers_failed_total", "counter", "Answers that an error ended.")
        yield f"{PREFIX}answers_failed_total {self._failed}"
        for name, value in self._tokens.items():
            yield from _head(f"{name}_tokens_total", "counter", f"Tokens: {name}.")
            yield f"{PREFIX}{name}_tokens_total {value}"
        yield from self._histogram()

    def _histogram(self) -> Iterator[str]:
        name = "time_to_first_token_seconds"
        yield from _head(name, "histogram", "From a request to the first piece of its answer.")
        total = 0
        for bound, count in zip((*BUCKETS, "+Inf"), self._first, strict=True):
            total += count
            yield f'{PREFIX}{name}_bucket{{le="{bound}"}} {total}'
        yield f"{PREFIX}{name}_sum {self._first_sum:.6f}"
        yield f"{PREFIX}{name}_count {total}"


class Watch:
    """Counts one answer, whose chunks it is shown one by one within a `with` block."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._begun: float | None = time.monotonic()
        self.totals = Totals()

    def see(self, chunk: ChatChunk) -> None:
        """Take note of the next chunk."""
        if self._begun is not None:
            self._metrics.add_first(time.monotonic() - self._begun)
            self._begun = None
        if chunk.usage is not None:
            self.totals.add(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self._metrics.add_failed()
        self._metrics.add_usage(self.totals)


def _engine_lines(counters: Mapping[str, float]) -> Iterator[str]:
    for name, value in sorted(counters.items()):
        yield from _head(f"engine_{name}", "untyped", f"The engine's own: {name}.")
        yield f"{PREFIX}engine_{name} {value:g}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}"
    yield f"# TYPE {PREFIX}{name} {kind}"
