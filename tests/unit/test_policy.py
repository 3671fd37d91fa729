"""When to restart, when something hangs, what to evict: pure functions, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiplayground.policy import (
    Liveness,
    Resident,
    RestartPolicy,
    expired,
    next_expiry,
    start_deadline,
    to_evict,
)

POLICY = RestartPolicy(limit=5, base=0.5, factor=2, cap=30, jitter=0.1, stable_after=10)
seconds = st.floats(0, 1e6, allow_nan=False)


def test_the_wait_doubles_up_to_the_cap_and_then_it_gives_up() -> None:
    long = RestartPolicy(limit=8, base=0.5, factor=2, cap=30, jitter=0, stable_after=10)
    waits = [long.delay(failures, 0.9) for failures in range(1, 10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, None]


def test_no_restart_at_all_when_the_limit_is_zero() -> None:
    never = RestartPolicy(limit=0, base=0.5, factor=2, cap=30, jitter=0, stable_after=10)
    assert never.delay(1, 0.5) is None


@given(
    failures=st.integers(1, 5000),
    noise=st.floats(0, 1),
    base=seconds,
    factor=st.floats(1, 1e6),
    cap=seconds,
    jitter=st.floats(0, 1),
)
def test_a_wait_is_never_longer_than_the_cap_and_its_jitter(
    failures: int, noise: float, base: float, factor: float, cap: float, jitter: float
) -> None:
    policy = RestartPolicy(
        limit=5000, base=base, factor=factor, cap=cap, jitter=jitter, stable_after=1
    )
    wait = policy.delay(failures, noise)
    assert wait is not None
    assert 0 <= wait <= cap * (1 + jitter) * 1.000001
    later = policy.delay(failures + 1, noise)
    assert later is None or later >= wait


def test_a_whole_number_as_factor_does_not_overflow() -> None:
    policy = RestartPolicy(limit=9999, base=0.5, factor=2, cap=30, jitter=0, stable_after=1)
    assert policy.delay(5000, 0) == 30


@pytest.mark.parametrize(
    ("failures", "ran_for", "expected"), [(0, 0, 1), (3, 9.9, 4), (3, 10, 1), (5, 0, 6)]
)
def test_running_long_enough_forgives(failures: int, ran_for: float, expected: int) -> None:
    assert POLICY.count(failures, ran_for) == expected


@pytest.mark.parametrize(
    ("last_progress", "expected"), [(100, 160), (150, 210), (690, 700), (10_000, 700)]
)
def test_progress_renews_the_deadline_of_a_start_but_not_for_ever(
    last_progress: float, expected: float
) -> None:
    assert start_deadline(100, last_progress, 60, patience=10) == expected


class Watch:
    """Feeds a `Liveness` probe after probe, one a second unless told otherwise."""

    def __init__(self, limit: float = 30, patience: float = 10) -> None:
        self.liveness = Liveness(limit=limit, patience=patience)
        self.now, self.wall, self.cpu, self.lines = 1000.0, 5e9, 0.0, 0

    def probe(
        self,
        *,
        ok: bool = False,
        after: float = 1,
        asleep: float = 0,
        cpu: float = 0,
        lines: int = 0,
    ) -> bool:
        self.now += after
        self.wall += after + asleep
        self.cpu += cpu
        self.lines += lines
        return self.liveness.observe(
            now=self.now, wall=self.wall, ok=ok, cpu=self.cpu, lines=self.lines
        )

    def hung_after(self, *, cpu: float = 0, lines: int = 0) -> int | None:
        return next((count for count in range(2000) if self.probe(cpu=cpu, lines=lines)), None)


def test_hung_when_it_fails_and_is_quiet_for_the_limit() -> None:
    assert Watch(limit=30).hung_after() == 30


def test_one_that_works_or_logs_gets_ten_times_the_limit() -> None:
    assert Watch(limit=30).hung_after(cpu=0.5) == 300
    assert Watch(limit=30).hung_after(lines=1) == 300


def test_activity_restarts_the_quiet_count() -> None:
    watch = Watch(limit=30)
    assert not any(watch.probe() for _ in range(29))
    assert not watch.probe(cpu=1)
    assert watch.hung_after() == 29


def test_an_answer_restarts_both_counts() -> None:
    watch = Watch(limit=30)
    assert not any(watch.probe() for _ in range(30))
    assert not watch.probe(ok=True)
    assert watch.hung_after() == 30


def test_a_little_cpu_is_no_sign_of_life() -> None:
    assert Watch(limit=30).hung_after(cpu=0.001) == 30


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_jump_of_the_clock_restarts_the_count(jump: float) -> None:
    watch = Watch(limit=30)
    assert not any(watch.probe() for _ in range(29))
    assert not watch.probe(asleep=jump)
    assert watch.hung_after() == 30


def test_a_small_correction_of_the_clock_changes_nothing() -> None:
    watch = Watch(limit=30)
    assert not watch.probe(asleep=3)
    assert watch.hung_after() == 29


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 20)), max_size=60))
def test_hung_is_never_said_before_the_limit(probes: list[tuple[bool, float]]) -> None:
    watch, failing = Watch(limit=30), 0.0
    first = True
    for ok, after in probes:
        failing = 0.0 if ok or first else failing + after
        first = ok
        if watch.probe(ok=ok, after=after):
            assert failing >= 29.999


def resident(model: str, *, busy: int = 0, used: float = 0, pinned: bool = False) -> Resident:
    return Resident(model=model, busy=busy, last_used=used, pinned=pinned)


def test_the_least_recently_used_goes_but_none_that_is_busy_or_pinned() -> None:
    models = [
        resident("busy", busy=1, used=1),
        resident("pinned", used=2, pinned=True),
        resident("old", used=3),
        resident("new", used=4),
    ]
    assert to_evict(models, 4) == "old"
    assert to_evict(models, 5) is None
    assert to_evict(models[:2], 2) is None
    assert to_evict([], 1) is None


residents = st.lists(
    st.builds(
        resident,
        st.text(min_size=1),
        busy=st.integers(0, 2),
        used=seconds,
        pinned=st.booleans(),
    ),
    max_size=8,
)


@given(residents, st.integers(1, 8))
def test_eviction_never_takes_what_is_used(models: list[Resident], limit: int) -> None:
    gone = to_evict(models, limit)
    free = [each for each in models if not each.busy and not each.pinned]
    if len(models) < limit or not free:
        assert gone is None
    else:
        assert gone in {each.model for each in free}


@given(residents, seconds, st.floats(0, 1000))
def test_expiry_agrees_with_the_time_until_the_next_one(
    models: list[Resident], now: float, timeout: float
) -> None:
    gone, wait = expired(models, now, timeout), next_expiry(models, now, timeout)
    if timeout == 0:
        assert (gone, wait) == ([], None)
        return
    free = [each for each in models if not each.busy and not each.pinned]
    assert gone == [each.model for each in free if now - each.last_used >= timeout]
    assert (wait is None) == (not free)
    assert wait is None or wait >= 0


def test_the_next_expiry_is_the_oldest_ones() -> None:
    models = [resident("a", used=10), resident("b", used=5), resident("c", used=1, busy=1)]
    assert next_expiry(models, 20, 60) == 45
    assert next_expiry(models, 80, 60) == 0
    assert expired(models, 66, 60) == ["b"]
