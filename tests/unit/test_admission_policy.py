"""Whether a model fits and who goes for it: pure, and compared with trying everything."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiplayground.admission import (
    LIMIT,
    MAIN,
    Evict,
    Holder,
    Load,
    Refuse,
    Release,
    Wait,
    decide,
    shortage,
)


def holder(name: str, size: int, **more: object) -> Holder:
    used = float(ord(name[0]))
    return Holder(service="svc", model=name, uses={MAIN: size}, last_used=used, **more)  # type: ignore[arg-type]  # fields of several types


def names(holders: tuple[Holder, ...]) -> list[str]:
    return [each.model for each in holders]


def test_what_fits_is_loaded_and_nobody_goes() -> None:
    assert decide({MAIN: 10}, {MAIN: 10}, [holder("a", 5)]) == Load()


def test_a_pool_that_is_not_known_is_not_checked() -> None:
    assert decide({MAIN: 10, "CUDA0": 99}, {MAIN: 10}, []) == Load()
    assert decide({MAIN: 0, "CUDA0": 5}, {MAIN: -20, "CUDA0": 5}, []) == Load()


def test_those_used_longest_ago_go_first() -> None:
    found = decide({MAIN: 10}, {MAIN: 2}, [holder("c", 5), holder("a", 5), holder("b", 5)])
    assert isinstance(found, Evict)
    assert names(found.holders) == ["a", "b"]
    assert found.short == {MAIN: 8}


def test_nobody_goes_who_does_not_help() -> None:
    found = decide({MAIN: 10}, {MAIN: 2}, [holder("a", 1), holder("b", 8), holder("c", 9)])
    assert isinstance(found, Evict)
    assert names(found.holders) == ["b"]


def test_who_goes_anyway_goes_first() -> None:
    holders = [holder("a", 8), holder("b", 2), holder("c", 8, leaving=True)]
    found = decide({MAIN: 10}, {MAIN: 2}, holders)
    assert isinstance(found, Evict)
    assert names(found.holders) == ["c"]


def test_only_those_in_the_pool_that_lacks_go() -> None:
    elsewhere = Holder(service="svc", model="a", uses={"CUDA0": 50})
    found = decide({MAIN: 10}, {MAIN: 2, "CUDA0": 0}, [elsewhere, holder("b", 8)])
    assert isinstance(found, Evict)
    assert names(found.holders) == ["b"]


def test_caches_are_asked_for_before_anybody_goes() -> None:
    found = decide({MAIN: 10}, {MAIN: 9}, [holder("a", 8), holder("b", 8, soft=True, busy=1)])
    assert isinstance(found, Release)
    assert names(found.holders) == ["b"]


def test_what_is_in_use_is_waited_for() -> None:
    holders = [holder("a", 4), holder("b", 4, busy=1), holder("c", 4, moving=True)]
    found = decide({MAIN: 10}, {MAIN: 0}, holders)
    assert isinstance(found, Wait)
    assert names(found.holders) == ["b", "c"]


def test_a_refusal_names_what_is_pinned_if_that_would_help() -> None:
    found = decide({MAIN: 10}, {MAIN: 0}, [holder("a", 4), holder("b", 9, pinned=True)])
    assert isinstance(found, Refuse)
    assert names(found.pinned) == ["b"]
    none = decide({MAIN: 99}, {MAIN: 0}, [holder("a", 4), holder("b", 9, pinned=True)])
    assert none == Refuse({MAIN: 99})


def test_the_limit_is_a_pool_of_its_own() -> None:
    found = decide({MAIN: 5, LIMIT: 5}, {MAIN: 100, LIMIT: 3}, [holder("a", 50)])
    assert isinstance(found, Refuse)  # what `a` gives back does not count towards the limit
    assert found.short == {LIMIT: 2}


@pytest.mark.parametrize(
    ("needs", "free", "short"),
    [
        ({MAIN: 5}, {MAIN: 5}, {}),
        ({MAIN: 5}, {MAIN: -1}, {MAIN: 6}),
        ({MAIN: 5}, {}, {}),
        ({MAIN: 0}, {MAIN: -9}, {}),
    ],
)
def test_shortage(needs: dict[str, int], free: dict[str, int], short: dict[str, int]) -> None:
    assert shortage(needs, free) == short


holders = st.lists(
    st.builds(
        Holder,
        service=st.just("svc"),
        model=st.uuids().map(str),
        uses=st.dictionaries(st.sampled_from([MAIN, LIMIT, "CUDA0"]), st.integers(0, 20)),
        busy=st.integers(0, 1),
        last_used=st.floats(0, 100),
        pinned=st.booleans(),
        moving=st.booleans(),
        leaving=st.booleans(),
    ),
    max_size=6,
)
figures = st.dictionaries(st.sampled_from([MAIN, LIMIT, "CUDA0"]), st.integers(0, 60))


@given(needs=figures, free=figures, holders=holders)
def test_it_is_refused_only_where_no_choice_would_do(
    needs: dict[str, int], free: dict[str, int], holders: list[Holder]
) -> None:
    def fits(going: tuple[Holder, ...]) -> bool:
        room = {
            pool: size + sum(each.uses.get(pool, 0) for each in going)
            for pool, size in free.items()
        }
        return not shortage(needs, room)

    def some(allowed: list[Holder]) -> bool:
        choices = (each for n in range(len(allowed) + 1) for each in combinations(allowed, n))
        return any(map(fits, choices))

    found = decide(needs, free, holders)
    evictable = [each for each in holders if each.evictable]
    unpinned = [each for each in holders if not each.pinned]
    if isinstance(found, Load):
        assert fits(())
    elif isinstance(found, Evict):
        assert not fits(())
        assert fits(found.holders)
        assert all(each.evictable for each in found.holders)
        for each in found.holders:
            rest = tuple(other for other in found.holders if other is not each)
            assert each.leaving or not fits(rest)
    elif isinstance(found, Wait):
        assert not some(evictable)
        assert some(unpinned)
        assert found.holders
        assert not any(each.evictable for each in found.holders)
    else:
        assert isinstance(found, Refuse)
        assert not some(unpinned)
        assert bool(found.pinned) == some(holders)
