"""What is computed next, decided without a model."""

from __future__ import annotations

import random

import pytest

from aiplayground_llamacpp.scheduler import (
    KEEP_TAIL,
    WORTH_SHARING,
    Limit,
    Pace,
    Part,
    Slot,
    Work,
    goes_on,
    held_back,
    latecomer,
    next_parts,
    place,
    reading,
    shared,
    split,
    victim,
)


def slot(index: int, held: int = 0, wanted: int | None = None, used: int = 0) -> Slot[Work]:
    """A slot that holds `held` tokens; at work on `wanted` of them if given."""
    work = None if wanted is None else Work(list(range(wanted)), order=index)
    return Slot(index, list(range(held)), work, used)


def counts(parts: list[Part[Work]]) -> list[tuple[int, int, bool]]:
    return [(part.slot.index, part.size, part.final) for part in parts]


def test_what_two_sequences_share() -> None:
    source = random.Random(3)
    for _ in range(200):
        common = [source.randrange(9) for _ in range(source.randrange(600))]
        assert shared([*common, 10, 1], [*common, 11]) == len(common)
        assert shared(common, [*common, 5]) == len(common)
    assert shared([], [1]) == 0


def test_a_sequence_goes_where_its_beginning_is() -> None:
    slots = [slot(0), slot(1, held=10), slot(2, held=50)]
    found = place(list(range(60)), slots, sharing=True)
    assert found is not None
    assert (found.target.index, found.source.index, found.keep) == (2, 2, 50)


def test_the_last_token_is_always_computed() -> None:
    found = place(list(range(50)), [slot(0, held=50)], sharing=True)
    assert found is not None
    assert found.keep == 49


def test_a_long_memory_is_not_given_up_for_a_short_beginning() -> None:
    kept = slot(0, held=100, used=9)
    short = [*range(20), 999]
    found = place(short, [kept, slot(1)], sharing=True)
    assert found is not None
    assert (found.target.index, found.source, found.keep) == (1, kept, 20)
    assert found.keep < KEEP_TAIL * len(kept.tokens)
    alone = place(short, [kept, slot(1)], sharing=False)
    assert alone is not None
    assert alone.target is alone.source is kept


def test_a_busy_slot_shares_its_beginning() -> None:
    busy = slot(0, held=40, wanted=41)
    found = place(list(range(60)), [busy, slot(1)], sharing=True)
    assert found is not None
    assert (found.target.index, found.source, found.keep) == (1, busy, 40)
    assert place(list(range(60)), [busy], sharing=True) is None


def test_a_few_tokens_are_not_shared_between_slots() -> None:
    busy = slot(0, held=40, wanted=41)
    found = place([*range(WORTH_SHARING - 1), 999, 998], [busy, slot(1)], sharing=True)
    assert found is not None
    assert (found.target.index, found.keep) == (1, 0)


def test_what_was_not_used_for_longest_is_given_up() -> None:
    slots = [slot(0, held=5, used=3), slot(1, held=5, used=2), slot(2, wanted=4)]
    found = place([77, 78], slots, sharing=True)
    assert found is not None
    assert (found.target.index, found.keep) == (1, 0)
    chosen = victim(slots)
    assert chosen is slots[1]
    assert victim([slot(0), slot(1, held=3, wanted=4)]) is None


def test_who_begins_like_a_prompt_that_is_being_read_waits_for_it() -> None:
    reading = slot(0, held=10, wanted=200)
    assert held_back(list(range(300)), [reading, slot(1)])
    assert not held_back([999, *range(300)], [reading, slot(1)])
    assert not held_back(list(range(10 + WORTH_SHARING - 1)), [reading, slot(1)])
    reading.tokens = list(range(200))
    assert not held_back(list(range(300)), [reading, slot(1)])


def test_answers_go_before_prompts() -> None:
    slots = [slot(0, held=0, wanted=300), slot(1, held=9, wanted=10), slot(2, held=3, wanted=4)]
    assert counts(next_parts(slots, 512, 64)) == [(1, 1, True), (2, 1, True), (0, 64, False)]
    assert counts(next_parts(slots, 2, 64)) == [(1, 1, True), (2, 1, True)]
    assert counts(next_parts([slot(0, 250, 300)], 512, 64)) == [(0, 50, True)]
    assert next_parts([slot(0), slot(1, held=4)], 512, 64) == []


def test_the_first_prompt_gets_half_and_the_short_ones_the_rest() -> None:
    slots = [slot(0, wanted=900), slot(1, wanted=700), slot(2, wanted=10)]
    assert counts(next_parts(slots, 512, 64)) == [(0, 32, False), (1, 22, False), (2, 10, True)]
    assert counts(next_parts([slot(0, wanted=8), slot(1, wanted=99)], 512, 64)) == [
        (0, 8, True),
        (1, 56, False),
    ]


def test_every_step_gets_on_and_keeps_within_its_bounds() -> None:
    source = random.Random(5)
    for _ in range(300):
        slots = [slot(n, 0, source.choice([None, 1, 2, 90, 400])) for n in range(6)]
        room, chunk = source.randint(6, 128), source.randint(1, 200)
        while any(each.pending for each in slots):
            parts = next_parts(slots, room, chunk)
            assert 0 < sum(part.size for part in parts) <= room
            for part in parts:
                assert part.final == (part.size == part.slot.pending)
                part.slot.tokens += [0] * part.size


def test_a_step_of_single_tokens_is_split_as_measured() -> None:
    parts = [Part(slot(n, 1, 2), 1, True) for n in range(3)]
    sizes = [[], [1], [1, 1], [2, 1]]
    assert [len(batch) for batch in split(parts, sizes)] == [2, 1]
    assert split(parts, []) == [parts]
    mixed = [*parts[:2], Part(slot(5, 0, 64), 64, True)]
    assert split(mixed, sizes) == [mixed]
    assert split([], sizes) == []


def test_where_slots_have_their_own_memory_each_prompt_is_a_batch() -> None:
    one, other = Part(slot(4, 0, 64), 64, True), Part(slot(0, 0, 9), 8, False)
    singles = [Part(slot(n, 1, 2), 1, True) for n in (5, 1, 3)]
    sizes = [[], [1], [2], [2, 1]]
    batches = split([*singles, one, other], sizes, apart=True)
    # What follows each other is computed together.
    assert [[part.slot.index for part in batch] for batch in batches] == [[1, 3], [5], [4], [0]]
    assert split([], sizes, apart=True) == []


class Begun(Work):
    """An answer that has just begun."""

    settled = False


def test_prompts_are_read_fast_while_no_more_answers_wait_than_prompts() -> None:
    prompts, answers = [slot(0, 0, 9), slot(1, 3, 9)], [slot(n, 8, 9) for n in range(2, 5)]
    assert reading(prompts)
    assert reading([*prompts, *answers[:2]])
    assert not reading([*prompts, *answers])
    for each in answers:
        each.work = Begun(list(range(9)))
    assert reading([*prompts, *answers])


def test_a_step_is_like_the_last_one_only_if_all_add_single_tokens() -> None:
    answers = [slot(0, 5, 6), slot(1, 7, 8), slot(2)]
    assert goes_on(next_parts(answers, 8, 8), answers)
    assert not goes_on(next_parts(answers, 1, 8), answers)  # one had no room
    reading = [*answers, slot(3, 0, 2)]
    assert not goes_on(next_parts(reading, 8, 8), reading)
    assert not goes_on(next_parts(reading, 8, 1), reading)  # a single token, but no answer's
    idle = [slot(0, 5)]
    assert not goes_on(next_parts(idle, 8, 8), idle)


def test_who_came_last_is_put_off_but_never_the_only_one() -> None:
    slots = [slot(0, wanted=5), slot(1, wanted=5), slot(2, held=5)]
    assert latecomer(slots) is slots[1]
    assert latecomer(slots[:1]) is None


def test_a_full_memory_lets_fewer_in_until_answers_end() -> None:
    limit = Limit(4)
    limit.full(2)
    assert limit.value == 2
    limit.ended()
    assert limit.value == 3
    limit.full(0)
    assert limit.value == 1
    for _ in range(9):
        limit.ended()
    assert limit.value == 4


@pytest.mark.parametrize(("seconds", "loud", "quiet"), [(6.4, 64, 256), (0.1, 512, 512)])
def test_chunks_are_as_large_as_the_time_for_a_step(seconds: float, loud: int, quiet: int) -> None:
    pace = Pace(0.1, least=64, quiet=256, most=512)
    assert (pace.chunk(quiet=False), pace.chunk(quiet=True)) == (64, 256)
    pace.took(5, 100.0)  # too few tokens to learn from
    assert pace.chunk(quiet=False) == 64
    for _ in range(9):
        pace.took(640, seconds)
    assert (pace.chunk(quiet=False), pace.chunk(quiet=True)) == (loud, quiet)
