"""Which batches are split, decided from made-up times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from aiplayground_llamacpp.calibration import (
    BUDGET,
    TOO_SLOW,
    Calibration,
    best_sizes,
    learnt,
    table,
)
from aiplayground_llamacpp.measuring import REVIEW, Measuring


def measured(time_of: Callable[[int], float], most: int = 8) -> tuple[dict[int, float], int]:
    calibration, asked = Calibration(most), 0
    while (size := calibration.wanted) is not None:
        asked += 1
        calibration.took(size, time_of(size))
    return calibration.times, asked


def test_the_dip_of_small_batches_is_avoided() -> None:
    times = {1: 4.3, 2: 19.7, 3: 24.0, 4: 28.7, 5: 29.0, 6: 29.5, 7: 30.0, 8: 31.1}
    assert best_sizes(times) == [
        [], [1], [1, 1], [1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [7], [8],
    ]  # fmt: skip


def test_parts_may_be_batches_themselves() -> None:
    assert best_sizes({1: 5.0, 2: 6.0, 3: 30.0, 4: 40.0})[4] == [2, 2]


@pytest.mark.parametrize("time_of", [lambda n: 1.0, lambda n: n * 1.0, lambda n: n * 1.05])
def test_what_gains_little_is_left_as_it_is(time_of: Callable[[int], float]) -> None:
    sizes = best_sizes({n: time_of(n) for n in range(1, 9)})
    assert sizes == [[], *([n] for n in range(1, 9))]
    assert best_sizes({}) == []


def test_the_shortest_of_some_rounds_counts_and_the_first_batch_does_not() -> None:
    seen: list[int] = []

    def time_of(size: int) -> float:
        seen.append(size)
        return 0.001 * size * (1 + 1 / len(seen))

    times, asked = measured(time_of, most=3)
    assert asked == 1 + 3 * 3
    assert sorted(times) == [1, 2, 3]
    assert times[1] < 0.001 * (1 + 1 / 7)


def test_a_slow_model_is_not_measured() -> None:
    assert measured(lambda n: TOO_SLOW * 1.1) == ({}, 2)


def test_measuring_ends_after_its_budget_but_never_with_gaps() -> None:
    times, asked = measured(lambda n: BUDGET / 4 if n > 1 else TOO_SLOW / 2)
    assert asked == 1 + 8
    assert sorted(times) == list(range(1, 9))


def test_a_single_slot_needs_no_measurement() -> None:
    assert measured(lambda n: 1.0, most=1) == ({}, 0)
    given_up = Calibration(4)
    given_up.give_up()
    assert (given_up.wanted, given_up.times) == (None, {})


def test_work_corrects_what_was_measured_little_by_little() -> None:
    measured_times = {1: 1.0, 2: 4.0}
    times: dict[int, float] = dict(measured_times)
    assert best_sizes(times)[2] == [1, 1]
    for _ in range(40):
        times = learnt(times, 1, 3.0)
    assert best_sizes(times)[2] == [2]
    assert times[2] == 4.0
    assert learnt({1: 1.0}, 1, 100.0) == learnt({1: 1.0}, 1, 2.0)
    assert learnt(times, 9, 1.0) == times
    assert measured_times == {1: 1.0, 2: 4.0}


def test_the_table_says_what_is_split() -> None:
    times = {1: 0.004, 2: 0.02}
    assert table(times, best_sizes(times)) == "1: 4.00 ms, 2: 20.00 ms as 1+1"


def test_what_work_taught_decides_until_there_is_nothing_to_do() -> None:
    class Memory:
        slots = (0, 1)

        def time_batch(self, size: int) -> float:
            return 0.001 if size == 1 else 0.004

    measuring: Measuring[Any] = Measuring(cast(Any, Memory()), lambda line: None)
    while measuring.step():
        assert not measuring.learn(1, 1.0), "nothing is known yet"
    assert measuring.sizes[2] == [1, 1]
    changes = [measuring.learn(1, 0.003) for _ in range(4 * REVIEW)]
    assert changes.count(True) == 1
    assert measuring.sizes[2] == [2]
    assert not measuring.step()
    assert measuring.sizes[2] == [1, 1]
    measuring.give_up()
    assert measuring.sizes[2] == [1, 1]
