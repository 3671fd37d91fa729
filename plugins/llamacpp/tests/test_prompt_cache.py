"""Conversations in main memory: what is kept, found and given up."""

from __future__ import annotations

import random

from aiplayground_llamacpp.prompt_cache import LEAST, PromptCache

TEXT = list(range(1000))


def add(cache: PromptCache, tokens: list[int], size: int = 100) -> bool:
    if not cache.wants(tokens, size):
        return False
    cache.add(tokens, bytes(size))
    return True


def test_the_longest_beginning_is_found() -> None:
    cache = PromptCache(10_000)
    assert add(cache, [*TEXT[:50], 7])
    assert add(cache, [*TEXT[:80], 8])
    entry = cache.find(TEXT, more_than=10)
    assert entry is not None
    assert len(entry.tokens) == 81
    assert cache.find(TEXT, more_than=80) is None
    assert cache.find([5, *TEXT], more_than=0) is None


def test_a_short_prompt_finds_the_conversation_that_it_began() -> None:
    cache = PromptCache(10_000)
    assert add(cache, TEXT[:80])
    entry = cache.find(TEXT[:20], more_than=16)
    assert entry is not None
    assert len(entry.tokens) == 80


def test_where_nothing_can_be_taken_back_only_whole_entries_will_do() -> None:
    cache = PromptCache(10_000, reach=0)
    assert add(cache, [*TEXT[:80], 8])
    assert add(cache, TEXT[:60])
    assert not add(cache, TEXT[:60])
    entry = cache.find(TEXT, more_than=0)
    assert entry is not None
    assert len(entry.tokens) == 60
    assert cache.find(TEXT[:60], more_than=0) is None


def test_short_entries_can_be_cut_where_long_ones_cannot() -> None:
    cache = PromptCache(10_000, reach=50)
    assert add(cache, TEXT[:50])
    assert add(cache, TEXT[:80])
    assert len(cache) == 2  # the longer one is no use to those who need the shorter
    found = cache.find([*TEXT[:60], -1], more_than=0)
    assert found is not None
    assert len(found.tokens) == 50
    found = cache.find([*TEXT[:45], -1], more_than=0)
    assert found is not None
    assert len(found.tokens) == 50
    found = cache.find(TEXT[:81], more_than=0)
    assert found is not None
    assert len(found.tokens) == 80


def test_what_is_known_or_too_small_or_too_large_is_not_wanted() -> None:
    cache = PromptCache(1000)
    assert not cache.wants(TEXT[: LEAST - 1], 10)
    assert not cache.wants(TEXT, 1001)
    assert not cache.wants(TEXT, 0)
    assert add(cache, TEXT[:90])
    assert not cache.wants(TEXT[:70], 10)
    assert add(cache, TEXT[:95])
    assert len(cache) == 1  # the longer one has all of the shorter


def test_what_a_slot_took_need_not_be_saved_again_and_a_longer_one_replaces_it() -> None:
    cache = PromptCache(1000)
    add(cache, TEXT[:90])
    entry = cache.find(TEXT, more_than=0)
    assert entry is not None
    cache.taken(entry)
    assert cache.knows(TEXT[:90])
    assert not cache.knows(TEXT[:91])
    assert add(cache, TEXT[:91], 150)
    assert (len(cache), cache.size) == (1, 150)


def test_what_nothing_will_replace_goes_with_the_slot_that_took_it() -> None:
    cache = PromptCache(1000, reach=0)
    add(cache, TEXT[:90])
    entry = cache.find(TEXT, more_than=0)
    assert entry is not None
    cache.taken(entry)
    assert (len(cache), cache.size) == (0, 0)


def test_bytes_are_limited_and_the_oldest_goes_first() -> None:
    source = random.Random(4)
    cache = PromptCache(1000)
    for number in range(200):
        tokens = [number, *(source.randrange(9) for _ in range(40))]
        add(cache, tokens, source.randint(1, 400))
        assert cache.size <= 1000
        assert cache.find([*tokens, 1], more_than=0) is not None
    assert cache.find([0] * 50, more_than=0) is None
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)
