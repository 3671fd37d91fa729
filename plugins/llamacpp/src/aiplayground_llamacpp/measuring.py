"""Calibration on the real engine, in the moments when there is nothing else to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from .calibration import Calibration, best_sizes, table
from .memory import SlotMemory
from .scheduler import W

MOST_MEASURED = 16
"""The largest batch that is measured."""


class Measuring(Generic[W]):
    """Times batches one by one; `sizes` is what `scheduler.split` divides a step by.

    `report` is told the result in a line for the log.
    """

    def __init__(self, memory: SlotMemory[W], report: Callable[[str], None]) -> None:
        self._memory = memory
        self._report = report
        self._calibration = Calibration(min(len(memory.slots), MOST_MEASURED))
        self.sizes: list[list[int]] = []

    def step(self) -> bool:
        """Time one batch while no slot is at work; return False if there is nothing to time."""
        size = self._calibration.wanted
        if size is None:
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

    def give_up(self) -> None:
        """End without a result, unless there is one already."""
        self._calibration.give_up()

    def _finish(self) -> None:
        times = self._calibration.times
        self.sizes = best_sizes(times)
        if times:
            self._report(f"time of a step by its tokens: {table(times, self.sizes)}")
