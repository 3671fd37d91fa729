"""What the gateway counts, in Prometheus's text format.

Source: Prometheus's "Exposition formats", version 0.0.4. Times are in seconds, sizes in tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiplayground.status import ServiceInfo

    from .queue import Queue

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
PREFIX = "aiplayground_gateway_"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of times to the first token, in seconds."""

MAX_MODELS = 500
"""Pairs of backend and model that are counted apart; further ones count as `other`."""

Pair = tuple[str, str]


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Metrics:
    """The counters of one gateway."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[tuple[str, str, str]] = Counter()
        self._answers: Counter[Pair] = Counter()
        self._untold: Counter[Pair] = Counter()
        self._cut: Counter[Pair] = Counter()
        self._first: dict[Pair, _Histogram] = {}

    def count_request(self, route: str, status: int) -> None:
        """Count an answered request; `route` is the route's template."""
        self._requests[route, status] += 1

    def count_answer(self, service: str, model: str) -> None:
        """Count a request that was given to a backend."""
        self._answers[self._pair(service, model)] += 1

    def add_first(self, service: str, model: str, seconds: float) -> None:
        """Count the time from a request to the first piece of its answer."""
        pair = self._pair(service, model)
        histogram = self._first.get(pair)
        if histogram is None:
            histogram = self._first[pair] = _Histogram()
        histogram.add(seconds)

    def add_tokens(self, service: str, model: str, prompt: int, completion: int) -> None:
        """Count what an answer cost."""
        service, model = self._pair(service, model)
        self._tokens[service, model, "prompt"] += prompt
        self._tokens[service, model, "completion"] += completion

    def count_untold(self, service: str, model: str) -> None:
        """Count a stream of which nobody told how many tokens it has."""
        self._untold[self._pair(service, model)] += 1

    def count_cut(self, service: str, model: str) -> None:
        """Count an answer that did not come to its end."""
        self._cut[self._pair(service, model)] += 1

    def _pair(self, service: str, model: str) -> Pair:
        known = (service, model) in self._answers or len(self._answers) < MAX_MODELS
        return (service, model) if known else (service, "other")

    def render(self, services: Iterable[ServiceInfo], queues: Mapping[str, Queue]) -> str:
        """Return all of it."""
        services = list(services)
        lines = [*self._counters(), *self._histograms(), *_of_queues(queues)]
        return "\n".join([*lines, *_of_services(services), ""])

    def _counters(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests answered, by route and status.")
        for (route, status), value in sorted(self._requests.items()):
            yield _line("requests_total", value, route=route, status=str(status))
        yield from _head("answers_total", "counter", "Requests given to a backend.")
        for (service, model), value in sorted(self._answers.items()):
            yield _line("answers_total", value, backend=service, model=model)
        yield from _head("tokens_total", "counter", "Tokens told; pieces of what broke off.")
        for (service, model, kind), value in sorted(self._tokens.items()):
            yield _line("tokens_total", value, backend=service, model=model, kind=kind)

        yield from _head("streams_untold_total", "counter", "Streams whose tokens nobody told.")
        for (service, model), value in sorted(self._untold.items()):
            yield _line("streams_untold_total", value, backend=service, model=model)
        yield from _head("answers_cut_total", "counter", "Streams that did not come to their end.")
        for (service, model), value in sorted(self._cut.items()):
            yield _line("answers_cut_total", value, backend=service, model=model)

    def _histograms(self) -> Iterator[str]:
        name = "time_to_first_token_seconds"
        yield from _head(name, "histogram", "From a request to the first piece of its answer.")
        for (service, model), histogram in sorted(self._first.items()):
            labels, total = {"backend": service, "model": model}, 0
            for bound, count in zip((*BUCKETS, "+Inf"), histogram.counts, strict=True):
                total += count
                yield _line(f"{name}_bucket", total, **labels, le=str(bound))
            yield _line(f"{name}_sum", round(histogram.total, 6), **labels)
            yield _line(f"{name}_count", total, **labels)


def _of_queues(queues: Mapping[str, Queue]) -> Iterator[str]:
    yield from _head("queue_active", "gauge", "Requests in progress.")
    for service, queue in sorted(queues.items()):
        yield _line("queue_active", queue.active, backend=service)
    yield from _head("queue_waiting", "gauge", "Requests that wait for their turn.")
    for service, queue in sorted(queues.items()):
        yield _line("queue_waiting", queue.waiting, backend=service)


def _of_services(services: Iterable[ServiceInfo]) -> Iterator[str]:
    yield from _head("service_state", "gauge", "1 for the state that a service is in.")
    for each in services:
        yield _line("service_state", 1, service=each.name, state=each.status.value)
    yield from _head("worker_restarts", "gauge", "Restarts of a worker since its start.")
    for each in services:
        for worker in each.workers:
            yield _line("worker_restarts", worker.restarts, service=each.name, worker=worker.name)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _line(name: str, value: float, **labels: str) -> str:
    text = ",".join(f'{label}="{_escaped(each)}"' for label, each in labels.items())
    return f"{PREFIX}{name}{{{text}}} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
