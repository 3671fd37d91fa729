"""How to measure so that a figure can be believed: alternated pairs, medians, an A/A control."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAIRS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `value` is judged against `bar`: the most, or the least, it may be."""

    what: str
    value: float
    low: float
    high: float
    unit: str
    bar: float | None = None
    at_least: bool = False
    control: tuple[float, float] | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`holds`, `missed`, or `unresolved` where the control's spread exceeds the margin."""
        if self.bar is None:
            return ""
        if self.control is not None:
            noise = max(abs(1 - self.control[0]), abs(self.control[1] - 1)) * self.value
            if noise > abs(self.bar - self.value):
                return "unresolved"
        holds = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "holds" if holds else "missed"

    def cells(self) -> list[str]:
        """Return the line as table cells."""
        if math.isnan(self.value):
            return [self.what, "not measured", "", "", "", "", self.note]
        control = f"{self.control[0]:.2f} to {self.control[1]:.2f}" if self.control else ""
        return [
            self.what,
            f"{self.value:.3g} {self.unit}".strip(),
            f"{self.low:.3g} to {self.high:.3g}",
            "" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:g}",
            control,
            self.verdict,
            self.note,
        ]


HEADER = ["measure", "median", "spread", "bar", "A/A control", "verdict", "note"]


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def ratio(
    what: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    bar: float,
    *,
    pairs: int = PAIRS,
) -> Row:
    """Time ours against a peer in alternated pairs, and the peer against itself."""
    ours(), peer()
    ratios, control = [], []
    for _ in range(pairs):
        a, b, c = seconds(peer), seconds(ours), seconds(peer)
        ratios.append(b / ((a + c) / 2))
        control.append(c / a)
    quartiles = statistics.quantiles(control, n=4)
    return Row(
        what=what,
        value=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        unit="x",
        bar=bar,
        control=(quartiles[0], quartiles[2]),
        note=f"{pairs} pairs; control: middle half",
    )


def absent(what: str, why: str) -> Row:
    """Return a line that says why something was not measured."""
    nothing = math.nan
    return Row(what=what, value=nothing, low=nothing, high=nothing, unit="", note=why)


def figure(
    what: str,
    samples: Sequence[float],
    unit: str,
    bar: float | None = None,
    note: str = "",
    *,
    at_least: bool = False,
) -> Row:
    """Summarise samples of one absolute figure."""
    return Row(
        what=what,
        value=statistics.median(samples),
        low=min(samples),
        high=max(samples),
        unit=unit,
        bar=bar,
        at_least=at_least,
        note=note or f"{len(samples)} samples",
    )
