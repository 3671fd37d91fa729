"""Calibration on the real engine, in the moments when there is nothing else to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from .calibration import Calibration, best_sizes, learnt, table
from .memory import SlotMemory
from .scheduler import W

MOST_MEASURED = 16
"""The largest batch that is measured."""

REVIEW = 16
"""Batches at work after which it is asked anew which are fast."""


class Measuring(Generic[W]):
    """Times batches one by one; `sizes` is what `scheduler.split` divides a step by.

    `report` is told the result in a line for the log.
    """

    def __init__(self, memory: SlotMemory[W], report: Callable[[str], None]) -> None:
        self._memory = memory
        self._report = report
        self._calibration = Calibration(min(len(memory.slots), MOST_MEASURED))
        self._measured: dict[int, float] = {}
        self._times: dict[int, float] = {}
        self._learnt = 0
        self.sizes: list[list[int]] = []

    def step(self) -> bool:
        """Time one batch while no slot is at work; return False if there is nothing to time."""
        size = self._calibration.wanted
        if size is None:
            self._forget()
            return False
        seconds = self._memory.time_batch(size)
        if seconds is None:
            self.give_up()
            return False
        self._calibration.took(size, seconds)
        if self._calibration.wanted is not None:
            return True
        self._finish()
        return False

    def learn(self, size: int, seconds: float) -> bool:
        """Take note of what a batch of single tokens took; return whether `sizes` has changed.

        What was measured is the least: where much is in memory, or others use it too, single
        tokens lose what they gain elsewhere.
        """
        if size not in self._times:
            return False
        self._times = learnt(self._times, size, seconds)
        self._learnt += 1
        before = self.sizes
        if self._learnt % REVIEW == 0:
            self.sizes = best_sizes(self._times)
        return self.sizes != before

    def give_up(self) -> None:
        """End without a result, unless there is one already."""
        self._calibration.give_up()

    def _finish(self) -> None:
        self._times = self._measured = times = dict(self._calibration.times)
        self.sizes = best_sizes(times)
        if times:
            self._report(f"time of a step by its tokens: {table(times, self.sizes)}")

    def _forget(self) -> None:
        """Begin the next work with what was measured: of a size not in use nothing is learnt."""
        if self._learnt:
            self._learnt, self._times = 0, self._measured
            self.sizes = best_sizes(self._times)
