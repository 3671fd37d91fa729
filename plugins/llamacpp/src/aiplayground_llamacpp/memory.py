"""Which slot holds what: placing sequences so that as little as possible is computed again."""

from __future__ import annotations

from typing import Generic

from .context import FULL, OK, Context, Row
from .counters import Counters
from .prompt_cache import PromptCache
from .scheduler import KEEP_TAIL, WORTH_SHARING, Slot, W, place, shared, victim

MOST_IDLE = 512
"""Tokens that idle slots keep while there is a cache to move them to: for each token that it
computes, whoever's it is, the engine looks at all that is in memory (measured with 134 M
parameters: 1,200 idle tokens cost 6 % of the tokens per second)."""

COPIED = 16 * 2**20
"""Bytes of a slot that are copied to the cache before it must be: some milliseconds of work."""


class SlotMemory(Generic[W]):
    """The slots of a context, and the cache behind them. `limit` is the cache's, in bytes."""

    def __init__(self, context: Context, limit: int, counters: Counters) -> None:
        self._context = context
        self._counters = counters
        self._cache = PromptCache(limit, reach=context.reach)
        self._clock = 0
        self._tidy = True
        self._copied: dict[int, int] = {}
        self.slots: list[Slot[W]] = [Slot(index) for index in range(context.slots)]

    def place(self, work: W) -> int:
        """Give a sequence a free slot; return how many of its tokens need not be computed."""
        found = place(work.tokens, self.slots, sharing=self._context.sharing)
        if found is None:
            raise ValueError("there is no free slot")
        target, source, keep = found
        if self._restore(work, target, keep):
            pass
        elif source is target:
            if keep < KEEP_TAIL * len(target.tokens):
                self._stash(target)
            self.trim(target, keep)
        else:
            self._stash(target)
            self.trim(target, 0)
            if keep:
                copied = self._context.copy(source.index, target.index, keep)
                target.tokens = source.tokens[:copied]
        target.work = work
        self._counters.slots_busy += 1
        return len(target.tokens)

    def leave(self, slot: Slot[W]) -> None:
        """Free a slot; what it holds is kept for later."""
        self._clock += 1
        self._counters.slots_busy -= slot.work is not None
        slot.work, slot.used = None, self._clock
        self._tidy = False

    def evict(self) -> bool:
        """Give up the memory of an idle slot; return False if none has any."""
        slot = victim(self.slots)
        if slot is not None:
            self.forget(slot)
        return slot is not None

    def forget(self, slot: Slot[W]) -> None:
        """Empty a slot; what it held goes to the cache if it is worth it."""
        self._stash(slot)
        self.trim(slot, 0)

    def clear(self) -> None:
        """Empty all slots, of which nobody knows what they hold."""
        self._context.clear()
        for slot in self.slots:
            slot.tokens = []

    def close(self) -> None:
        """Give up the cache."""
        self.release()

    def release(self) -> int:
        """Empty the cache and return the bytes that it held; the slots keep what they hold."""
        held = self._cache.size
        self._cache.clear()
        self._count()
        return held

    def time_batch(self, size: int) -> float | None:
        """Return the seconds that a batch of single tokens takes, or None if it cannot be told.

        Only while no slot is at work; what the slots hold stays.
        """
        token = self._context.model.first_token
        slots = self.slots[:size]
        if any(len(slot.tokens) >= self._context.size for slot in slots):
            return None
        clock = self._context.clock
        started = clock()
        rows = [Row(slot.index, len(slot.tokens), [token], True) for slot in slots]
        status, _ = self._context.decode(rows)
        seconds = clock() - started
        if status != OK:
            if status != FULL:
                self.clear()
            return None
        for slot in slots:
            self.trim(slot, len(slot.tokens))
        return seconds

    def _restore(self, work: W, target: Slot[W], keep: int) -> bool:
        """Fill a slot from the cache if that has more than `keep` tokens of the sequence."""
        entry = self._cache.find(work.tokens, more_than=keep + WORTH_SHARING)
        if entry is None:
            return False
        common = shared(tuple(work.tokens), entry.tokens)
        self._cache.taken(entry)
        self._stash(target)
        if not self._context.restore(target.index, entry.data):
            target.tokens = []
            return False
        target.tokens = list(entry.tokens)
        self.trim(target, min(common, len(work.tokens) - 1))
        self._counters.restored_tokens += len(target.tokens)
        self._count()
        return True

    def tidy(self) -> None:
        """Move what the oldest idle slot holds to the cache if idle slots hold much.

        One at a time, between two steps: nobody's next token waits for more than that.
        """
        if self._tidy or not self._context.unified:  # nobody looks at another slot's part
            return
        idle = [slot for slot in self.slots if slot.work is None and slot.tokens]
        if sum(len(slot.tokens) for slot in idle) > MOST_IDLE:
            for slot in sorted(idle, key=lambda slot: slot.used):
                if self._stash(slot):
                    self.trim(slot, 0)
                    return
        self._tidy = True

    def keep_copy(self) -> bool:
        """Copy what an idle slot holds to the cache; False if all that is worth it is there.

        For when there is nothing else to do: later the slot can be given away at once.
        """
        for slot in self.slots:
            if slot.work is None and slot.used != self._copied.get(slot.index, 0):
                self._copied[slot.index] = slot.used
                if self._context.state_size(slot.index) <= COPIED:
                    self._stash(slot)
                return True
        return False

    def _stash(self, slot: Slot[W]) -> bool:
        """Put what a slot holds into the cache if it is worth it; False if it cannot be kept."""
        if self._cache.limit == 0:
            return False
        if self._cache.knows(slot.tokens) or self._held_elsewhere(slot):
            return True
        size = self._context.state_size(slot.index)
        if size > self._cache.limit:
            return False
        if self._cache.wants(slot.tokens, size):
            data = self._context.save(slot.index, size)
            if data is None:
                return False
            self._cache.add(slot.tokens, data)
            self._count()
        return True

    def _held_elsewhere(self, slot: Slot[W]) -> bool:
        tokens, count = slot.tokens, len(slot.tokens)
        others = (other for other in self.slots if other is not slot)
        return any(other.tokens[:count] == tokens for other in others)

    def trim(self, slot: Slot[W], count: int) -> None:
        """Let a slot hold its first `count` tokens; none at all where that cannot be."""
        del slot.tokens[self._context.trim(slot.index, count) :]

    def _count(self) -> None:
        self._counters.prompt_cache_entries = len(self._cache)
        self._counters.prompt_cache_bytes = self._cache.size
