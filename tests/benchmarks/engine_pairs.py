"""Two servers against each other: alternated pairs, and each time the peer against itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .engine_client import Run, body_of, run_all
from .measure import Row

TOKENS = 48
STREAMS = (1, 2, 4, 8, 16)
SHARE = 0.97
"""Least of the peer's tokens per second."""

FIRST, FIRST_SECONDS = 1.15, 0.015
"""Most that a first token may take: so many times the peer's, or so many seconds more."""


@dataclass(slots=True)
class Pairs:
    """What the pairs of one measure gave: ours and the peer's by turns, the peer's a second time.

    Values are those that grow with what is worse or better, as the measure has it.
    """

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)

    def add(self, ours: float, peer: float, again: float) -> None:
        """Take in one pair, and its control."""
        self.ours.append(ours)
        self.peer.append(peer)
        self.again.append(again)

    def row(self, what: str, bar: float, *, at_least: bool, note: str = "") -> Row:
        """Return the line: medians of the ratios, and the middle half of the controls."""
        ratios = [
            one / ((a + b) / 2) for one, a, b in zip(self.ours, self.peer, self.again, strict=True)
        ]
        control = [b / a for a, b in zip(self.peer, self.again, strict=True)]
        low, high = _middle(control)
        return Row(
            what=what, value=statistics.median(ratios), low=min(ratios), high=max(ratios),
            unit="x", bar=bar, at_least=at_least, control=(low, high), note=note,
        )  # fmt: skip


def _middle(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return quartiles[0], quartiles[2]


@dataclass(slots=True)
class Contest:
    """Our server and a peer, by the ports that they listen on."""

    name: str
    ours: int
    peer: int
    pairs: int
    prompts: int = 0

    def rates(self, streams: int, *, cold: bool, bar: float, first: bool = True) -> Iterator[Row]:
        """Compare tokens per second, and the time to the first token."""
        rates, firsts = Pairs(), Pairs()
        known = self._new(streams)
        kind = "unseen" if cold else "repeated"
        for number in range(-1, self.pairs):
            bodies = self._new(streams) if cold else known
            ours, peer, again = self._three(bodies, lambda: self._new(streams) if cold else known)
            if number >= 0:  # the first warms up, and lets them see what is repeated
                rates.add(ours.rate, peer.rate, again.rate)
                firsts.add(ours.first, peer.first, again.first)
        what = f"{self.name}, {streams} streams, {kind} prompts"
        speeds = f"medians {_median(rates.ours):.0f} and {_median(rates.peer):.0f} tokens/s"
        yield rates.row(f"{what}: tokens per second", bar, at_least=True, note=speeds)
        if first:
            theirs = _median(firsts.peer)
            times = f"medians {_median(firsts.ours) * 1e3:.0f} and {theirs * 1e3:.0f} ms"
            most = max(FIRST, 1 + FIRST_SECONDS / theirs)
            yield firsts.row(f"{what}: first token", round(most, 2), at_least=False, note=times)

    def _three(
        self, bodies: list[dict[str, Any]], fresh: Callable[[], list[dict[str, Any]]]
    ) -> tuple[Run, Run, Run]:
        # Ours lies between the peer's two, so that what changes slowly changes nothing.
        peer = run_all(self.peer, bodies, TOKENS)
        ours = run_all(self.ours, bodies, TOKENS)
        again = run_all(self.peer, fresh(), TOKENS)
        return ours, peer, again

    def _new(self, streams: int) -> list[dict[str, Any]]:
        """Return requests with prompts of 40 to 100 tokens that nobody has seen before."""
        self.prompts += streams
        return [
            body_of(f"{number}: how does that work? " + "And that? " * (number % 7), TOKENS)
            for number in range(self.prompts - streams, self.prompts)
        ]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
