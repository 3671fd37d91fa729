"""Which batches are split, decided from made-up times."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiplayground_llamacpp.calibration import BUDGET, TOO_SLOW, Calibration, best_sizes, table


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


def test_the_table_says_what_is_split() -> None:
    times = {1: 0.004, 2: 0.02}
    assert table(times, best_sizes(times)) == "1: 4.00 ms, 2: 20.00 ms as 1+1"
