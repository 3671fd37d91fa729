"""Two servers against each other, by turns: each run of either follows one of the other.

So neither finds the processor's caches as it left them. The control is the peer against itself: its
run before ours, and its run after it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .engine_client import body_of, run_all
from .measure import Row

TOKENS = 48
STREAMS = (1, 2, 4, 8, 16)
ANSWERS = 8
"""Least answers in a run: with few streams, one round of them follows the other. Short runs would
show what else the machine does."""

SHARE = 0.97
"""Least of the peer's tokens per second."""

FIRST, FIRST_SECONDS = 1.15, 0.015
"""Most that a first token may take: so many times the peer's, or so many seconds more."""


@dataclass(slots=True)
class Pairs:
    """What the pairs of one measure gave: ours, and the peer's before it and after it.

    Values are those that grow with what is worse or better, as the measure has it.
    """

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)

    def add(self, ours: float, before: float, after: float) -> None:
        """Take in one pair, and its control."""
        self.ours.append(ours)
        self.peer.append(before)
        self.again.append(after)

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
    sets: int = 0

    def rates(self, streams: int, *, cold: bool, bar: float, first: bool = True) -> Iterator[Row]:
        """Compare tokens per second, and the time to the first token."""
        rates, firsts = Pairs(), Pairs()
        kind = "unseen" if cold else "repeated"
        known = self._new(streams)
        before = run_all(self.peer, known, TOKENS)
        for number in range(-1, self.pairs):
            rounds = self._new(streams) if cold else known
            ours, after = (run_all(port, rounds, TOKENS) for port in (self.ours, self.peer))
            if number >= 0:  # the first warms up, and lets them see what is repeated
                rates.add(ours.rate, before.rate, after.rate)
                firsts.add(ours.first, before.first, after.first)
            before = after
        what = f"{self.name}, {streams} streams, {kind} prompts"
        speeds = f"medians {_median(rates.ours):.0f} and {_median(rates.peer):.0f} tokens/s"
        yield rates.row(f"{what}: tokens per second", bar, at_least=True, note=speeds)
        if first:
            theirs = _median(firsts.peer)
            times = f"medians {_median(firsts.ours) * 1e3:.0f} and {theirs * 1e3:.0f} ms"
            most = max(FIRST, 1 + FIRST_SECONDS / theirs)
            yield firsts.row(f"{what}: first token", round(most, 2), at_least=False, note=times)

    def _new(self, streams: int) -> list[list[dict[str, Any]]]:
        """Return rounds of requests with prompts of 40 to 100 tokens that nobody has seen before.

        All sets have the same lengths.
        """
        self.sets += 1
        rounds = range(max(1, ANSWERS // streams))
        return [
            [
                body_of(f"{self.sets}.{turn}.{place}: how does that work? " + again, TOKENS)
                for place in range(streams)
                for again in ["And that? " * ((turn * streams + place) % 7)]
            ]
            for turn in rounds
        ]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
