"""Conversations that no slot holds any more, kept in main memory: tested without a model.

Putting one back costs a fraction of a millisecond for hundreds of tokens; computing it again costs
seconds.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from .scheduler import WORTH_SHARING, shared

LEAST = 32
"""Tokens that are worth keeping; fewer are computed as fast as found."""

FIRST = WORTH_SHARING
"""Entries are looked up by so many first tokens: whoever shares fewer has no use for one."""


class Entry(NamedTuple):
    """Tokens, and what the memory held of them: a native buffer of `len(data)` bytes."""

    tokens: tuple[int, ...]
    data: Any


class PromptCache:
    """Up to `limit` bytes of saved sequences; what was not used for longest goes first.

    `reach`: an entry of more tokens is of use only whole; nothing shorter can be made of it.
    """

    def __init__(self, limit: int, *, reach: int = sys.maxsize) -> None:
        self.limit = limit
        self._reach = reach
        self.size = 0
        self._entries: OrderedDict[tuple[int, ...], Entry] = OrderedDict()
        self._index: dict[tuple[int, ...], set[tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def wants(self, tokens: Sequence[int], size: int) -> bool:
        """Say whether to keep these tokens, which take `size` bytes."""
        return 0 < size <= self.limit and not self.knows(tokens)

    def knows(self, tokens: Sequence[int]) -> bool:
        """Say whether there is nothing about these tokens that is worth keeping."""
        if len(tokens) < LEAST:
            return True
        key = tuple(tokens)  # tuples compare with tuples alone
        if key in self._entries:
            return True
        cut = (kept for kept in self._near(key) if len(kept) <= self._reach)
        return any(kept[: len(key)] == key for kept in cut)

    def add(self, tokens: Sequence[int], data: Any) -> None:
        """Keep a sequence that is wanted, in place of those that are only its beginning."""
        key = tuple(tokens)
        for kept in list(self._near(key)):
            if len(key) <= self._reach and key[: len(kept)] == kept:
                self._drop(kept)
        self._entries[key] = Entry(key, data)
        self._index.setdefault(key[:FIRST], set()).add(key)
        self.size += len(data)
        while self.size > self.limit:
            self._drop(next(iter(self._entries)))

    def find(self, tokens: Sequence[int], *, more_than: int) -> Entry | None:
        """Return the entry that shares most tokens, if more than so many."""
        wanted = tuple(tokens)
        best, most = None, more_than
        for key in self._near(wanted):
            common = shared(key, wanted)
            whole = common == len(key) < len(wanted)
            if common > most and (whole or len(key) <= self._reach):
                best, most = key, common
        if best is None:
            return None
        self._entries.move_to_end(best)
        return self._entries[best]

    def taken(self, entry: Entry) -> None:
        """Take note that a slot holds an entry now.

        It stays if the slot's, once that is longer, will replace it: an answer that comes out as
        before then need not be saved again.
        """
        if len(entry.tokens) > self._reach:
            self._drop(entry.tokens)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._index.clear()
        self.size = 0

    def _near(self, key: tuple[int, ...]) -> set[tuple[int, ...]]:
        return self._index.get(key[:FIRST], set())

    def _drop(self, key: tuple[int, ...]) -> None:
        self.size -= len(self._entries.pop(key).data)
        near = self._index[key[:FIRST]]
        near.discard(key)
        if not near:
            del self._index[key[:FIRST]]
