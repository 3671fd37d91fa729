"""What the engine computes next: pure, and tested without a model.

A *slot* is one sequence in the context's memory of keys and values. A *sequence* is an answer in
the making: all its tokens, of which its slot may hold only the first ones. What is missing is
computed in batches: a prompt in chunks, and then each chosen token by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

WORTH_SHARING = 16
"""Tokens that two sequences must have in common for one to wait for the other, or to share them."""

KEEP_TAIL = 0.5
"""A slot is taken over in place if at least this part of it is of use; else it is left as it is."""


@dataclass(eq=False, slots=True)
class Work:
    """Tokens that are to be in memory; `order` says who came first."""

    tokens: list[int]
    order: int = 0

    @property
    def settled(self) -> bool:
        """Whether the answer has been going on for a while."""
        return True


W = TypeVar("W", bound=Work)


@dataclass(eq=False, slots=True)
class Slot(Generic[W]):
    """One sequence of the context. `tokens` is what it holds; `used` is when, for the LRU."""

    index: int
    tokens: list[int] = field(default_factory=list)
    work: W | None = None
    used: int = 0

    @property
    def pending(self) -> int:
        """How many tokens of its work are still to be computed."""
        return len(self.work.tokens) - len(self.tokens) if self.work else 0


class Part(NamedTuple, Generic[W]):
    """The next `size` tokens of a slot; `final`: what follows them is to be chosen."""

    slot: Slot[W]
    size: int
    final: bool


class Placement(NamedTuple, Generic[W]):
    """Where a sequence goes: its first `keep` tokens are there, or in `source`, already."""

    target: Slot[W]
    source: Slot[W]
    keep: int


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences, of the same type, share from their start."""
    longest = min(len(one), len(other))
    if longest == 0 or one[0] != other[0]:
        return 0
    # Slices compare at the speed of C: prompts have thousands of tokens.
    if one[:longest] == other[:longest]:
        return longest
    same, different = 1, longest
    while different - same > 1:
        middle = (same + different) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            different = middle
    return same


def place(tokens: Sequence[int], slots: Iterable[Slot[W]], *, sharing: bool) -> Placement[W] | None:
    """Choose a free slot for a sequence, or None if there is none.

    `sharing`: the memory lets a slot take over the beginning of another. At least one token is
    left to compute, since what follows the last one is what is asked for.
    """
    slots = tuple(slots)
    free = [slot for slot in slots if slot.work is None]
    if not free:
        return None
    most = len(tokens) - 1
    found = {slot.index: min(shared(tokens, slot.tokens), most) for slot in slots}
    best = max(free, key=lambda slot: (found[slot.index], -len(slot.tokens)))
    if not sharing:
        return Placement(best, best, found[best.index])
    source = max(slots, key=lambda slot: (found[slot.index], slot.work is None))
    keep = found[source.index]
    if keep and keep == found[best.index] and keep >= KEEP_TAIL * len(best.tokens):
        return Placement(best, best, keep)
    target = min(free, key=lambda slot: (bool(slot.tokens), slot.used))
    # A few tokens are computed as fast as shared, and what is computed in one go lies in one
    # piece: sums over it come out the same each time.
    return Placement(target, source, keep if keep >= WORTH_SHARING else 0)


def held_back(tokens: Sequence[int], slots: Iterable[Slot[W]]) -> bool:
    """Say whether to wait for a prompt that is being read and begins like this one."""
    slots = tuple(slots)
    now = max((shared(tokens, slot.tokens) for slot in slots), default=0)
    soon = max((shared(tokens, slot.work.tokens) for slot in slots if slot.work), default=0)
    return min(soon, len(tokens) - 1) >= now + WORTH_SHARING


def next_parts(slots: Iterable[Slot[W]], room: int, chunk: int) -> list[Part[W]]:
    """Return what goes into the next step: at most `room` tokens.

    Slots with a single token to compute come first, so that nobody's answer waits for a prompt;
    prompts share `chunk` tokens behind them. Of these the one that came first gets half, so that
    it is never starved; the shortest get the rest, so that they start soon.
    """
    busy = sorted((slot for slot in slots if slot.work is not None), key=_order)
    parts: list[Part[W]] = []
    prompts: list[Slot[W]] = []
    for slot in busy:
        pending = slot.pending
        if pending == 1 and len(parts) < room:
            parts.append(Part(slot, 1, True))
        elif pending > 1:
            prompts.append(slot)
    left = min(chunk, room - len(parts))
    if not prompts or left < 1:
        return parts
    first, *others = prompts
    share = left if not others else (left + 1) // 2
    counts = {first.index: min(first.pending, share)}
    left -= counts[first.index]
    for slot in sorted(others, key=lambda slot: slot.pending):
        counts[slot.index] = min(slot.pending, left)
        left -= counts[slot.index]
    counts[first.index] += min(left, first.pending - counts[first.index])
    return parts + [_part(slot, counts[slot.index]) for slot in prompts if counts[slot.index]]


def reading(slots: Iterable[Slot[W]]) -> bool:
    """Say whether prompts are to be read in large chunks, which is faster for them.

    So it is while no more answers wait for their next token than prompts are read. Answers that
    have just begun do not count: they came with these prompts, and go on sooner together.
    """
    busy = [slot for slot in slots if slot.work is not None]
    prompts = sum(slot.pending > 1 for slot in busy)
    waiting = sum(slot.pending == 1 and slot.work.settled for slot in busy if slot.work)
    return waiting <= prompts


def split(
    parts: Sequence[Part[W]], sizes: Sequence[Sequence[int]], *, apart: bool = False
) -> list[list[Part[W]]]:
    """Divide a step into batches of the sizes that are fastest for so many single tokens.

    `sizes[n]` lists the batch sizes for n tokens. A step with a chunk of a prompt stays one
    batch: there the many tokens decide how long it takes. But not where slots have their memory
    `apart`: llama.cpp then computes as many tokens of each slot at a time as the shortest part has,
    and only slots that follow each other.
    """
    if not apart:
        return _by_size(parts, sizes)
    singles = sorted((part for part in parts if part.size == 1), key=lambda part: part.slot.index)
    return [*_by_size(singles, sizes), *([part] for part in parts if part.size > 1)]


def _by_size(parts: Sequence[Part[W]], sizes: Sequence[Sequence[int]]) -> list[list[Part[W]]]:
    count = len(parts)
    if count >= len(sizes) or any(part.size > 1 for part in parts):
        return [list(parts)] if parts else []
    batches, start = [], 0
    for size in sizes[count]:
        batches.append(list(parts[start : start + size]))
        start += size
    return batches


def goes_on(parts: Sequence[Part[W]], slots: Iterable[Slot[W]]) -> bool:
    """Say whether the step after this one has the same parts, should nobody come or leave.

    So it is once all who are in work add one token after the other.
    """
    busy = sum(slot.work is not None for slot in slots)
    return 0 < busy == len(parts) and all(part.size == 1 and part.final for part in parts)


def victim(slots: Iterable[Slot[W]]) -> Slot[W] | None:
    """Return the idle slot whose memory is given up first, or None if no idle slot has any."""
    idle = [slot for slot in slots if slot.work is None and slot.tokens]
    return min(idle, key=lambda slot: slot.used, default=None)


def latecomer(slots: Iterable[Slot[W]]) -> Slot[W] | None:
    """Return the busy slot that is put off when the memory is full: never the only one."""
    busy = [slot for slot in slots if slot.work is not None]
    return max(busy, key=_order) if len(busy) > 1 else None


class Limit:
    """How many sequences may be in memory at a time, of at most `slots`.

    A full memory puts one off; each answer that ends without another put off lets one more in.
    So two answers that do not fit together never take turns in pushing each other out.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.value = slots

    def full(self, busy: int) -> None:
        """Take note that only so many fit."""
        self.value = max(1, min(busy, self._slots))

    def ended(self) -> None:
        """Take note that an answer has ended."""
        self.value = min(self.value + 1, self._slots)


class Pace:
    """How many tokens of prompts to compute in a step that is to take `seconds`.

    `least` of them while others wait for their next token. While few do, `quiet` may be read at
    once: reading goes faster in large chunks.
    """

    def __init__(self, seconds: float, *, least: int, quiet: int, most: int) -> None:
        self._seconds = seconds
        self._least, self._quiet, self._most = min(least, most), min(quiet, most), most
        self._cost: float | None = None

    def chunk(self, *, quiet: bool) -> int:
        """Return the number of tokens."""
        least = self._quiet if quiet else self._least
        fitting = int(self._seconds / self._cost) if self._cost else 0
        return max(least, min(self._most, fitting))

    def took(self, tokens: int, seconds: float) -> None:
        """Learn from a step; those of few tokens say nothing about prompts."""
        if tokens < self._least // 2:
            return
        cost = max(seconds / tokens, 1e-9)
        self._cost = cost if self._cost is None else 0.7 * self._cost + 0.3 * cost


def _order(slot: Slot[W]) -> int:
    return slot.work.order if slot.work else 0


def _part(slot: Slot[W], count: int) -> Part[W]:
    return Part(slot, count, count == slot.pending)
