"""Which batch sizes are fast on this machine: pure, and tested without a model.

On a CPU, small batches can take longer than their tokens one by one: the kernels for many tokens
pay off late (measured on a model of 134 M parameters in Q8_0: two tokens 20 ms in one batch, 9 ms
in two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ROUNDS = 3
BUDGET = 0.4
"""Seconds that the measurements may take in all, when they would go on for longer."""

TOO_SLOW = 0.03
"""Seconds for one token: a model that takes longer is not measured, nor its batches split. It is
memory that such a model waits for, and that is read once for the whole batch."""

WEIGHT = 0.1
"""How much of a time at work goes into what is believed; no more than twice that counts, so that
one that something else held up says little."""

GAIN = 0.9
"""A batch is split if its parts together take less than this part of its time: less is noise."""


class Calibration:
    """Collects how long batches of single tokens take, the shortest of a few rounds.

    `most` is the largest batch. Whoever measures asks `wanted`, and tells what it `took`.
    """

    def __init__(self, most: int) -> None:
        # The first batch of all is slower than it will ever be again.
        self._plan = [1, *([*range(1, most + 1)] * ROUNDS)] if most > 1 else []
        self._place = 0
        self._first_round = 1 + most
        self._spent = 0.0
        self.times: dict[int, float] = {}

    @property
    def wanted(self) -> int | None:
        """The size of the next batch to measure; None at the end."""
        return self._plan[self._place] if self._place < len(self._plan) else None

    def took(self, size: int, seconds: float) -> None:
        """Take note of a measurement."""
        if self._place > 0:
            self.times[size] = min(seconds, self.times.get(size, seconds))
        self._spent += seconds
        self._place += 1
        if self._place == 2 and seconds > TOO_SLOW:  # the first that counts
            self.times.clear()
            self._place = len(self._plan)
        elif self._place >= self._first_round and self._spent > BUDGET:
            self._place = len(self._plan)

    def give_up(self) -> None:
        """End without a result."""
        self.times.clear()
        self._place = len(self._plan)


def learnt(times: Mapping[int, float], size: int, seconds: float) -> dict[int, float]:
    """Return times corrected by what a batch took at work: with long answers, and neighbours."""
    known = times.get(size)
    if known is None:
        return dict(times)
    return {**times, size: known + WEIGHT * (min(seconds, 2 * known) - known)}


def best_sizes(times: Mapping[int, float]) -> list[list[int]]:
    """Return, for each number of tokens, the batch sizes that take the least time together.

    `times[n]` is in seconds, for n from 1 on without a gap. The list is empty without times.
    """
    if not times:
        return []
    cost, sizes = [0.0], [[]]  # type: tuple[list[float], list[list[int]]]
    for count in range(1, max(times) + 1):
        parts = [(cost[n] + cost[count - n], n) for n in range(1, count // 2 + 1)]
        least, n = min(parts, default=(float("inf"), 0))
        if least < GAIN * times[count]:
            cost.append(least)
            sizes.append(sorted(sizes[count - n] + sizes[n], reverse=True))
        else:
            cost.append(times[count])
            sizes.append([count])
    return sizes


def table(times: Mapping[int, float], sizes: Sequence[Sequence[int]]) -> str:
    """Return the measurements in one line, for the log."""
    rows = []
    for count, seconds in sorted(times.items()):
        split = "" if len(sizes[count]) == 1 else " as " + "+".join(map(str, sizes[count]))
        rows.append(f"{count}: {seconds * 1e3:.2f} ms{split}")
    return ", ".join(rows)
