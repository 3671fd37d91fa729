"""Whether a model fits, and what would have to go: pure functions.

Memory comes in pools: the main memory, the limit that the settings put on it, and each device with
memory of its own. A model fits where every pool has room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

MAIN = "main memory"
LIMIT = "residency.memory_limit"

Figures: TypeAlias = Mapping[str, int]
"""Bytes by pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A model that has memory; `uses` is what comes back when it goes, in bytes by pool.

    `moving`: it is being loaded or unloaded. `leaving`: the limit on the number of models makes it
    go in any case. `soft`: it can give back some without going, and was not asked yet.
    `last_used` is in monotonic seconds.
    """

    service: str
    model: str
    uses: Figures = field(default_factory=dict)
    busy: int = 0
    last_used: float = 0.0
    pinned: bool = False
    moving: bool = False
    leaving: bool = False
    soft: bool = False

    @property
    def evictable(self) -> bool:
        """Whether it can go now."""
        return not (self.busy or self.pinned or self.moving)


@dataclass(frozen=True, slots=True)
class Load:
    """It fits."""


@dataclass(frozen=True, slots=True)
class Release:
    """Ask these for what they can do without, then look again; `short` is in bytes by pool."""

    holders: tuple[Holder, ...]
    short: Figures


@dataclass(frozen=True, slots=True)
class Evict:
    """Unload these, in this order: it fits then."""

    holders: tuple[Holder, ...]
    short: Figures


@dataclass(frozen=True, slots=True)
class Wait:
    """It fits once these are no longer in use."""

    holders: tuple[Holder, ...]
    short: Figures


@dataclass(frozen=True, slots=True)
class Refuse:
    """It does not fit; it would if `pinned` were no longer pinned (empty: not even then)."""

    short: Figures
    pinned: tuple[Holder, ...] = ()


Decision: TypeAlias = Load | Release | Evict | Wait | Refuse


def decide(needs: Figures, free: Figures, holders: Sequence[Holder]) -> Decision:
    """Decide about a load that `needs` so many bytes of each pool, of which so many are free.

    A pool that `free` does not name is not known and not checked. Those used longest ago go first,
    and nobody goes who does not help.
    """
    short = shortage(needs, free)
    if not short:
        return Load()
    soft = tuple(each for each in holders if each.soft and not each.moving and MAIN in short)
    if soft:
        return Release(_in_order(soft), short)
    if (chosen := _enough(short, holders, lambda each: each.evictable)) is not None:
        return Evict(chosen, short)
    if (chosen := _enough(short, holders, lambda each: not each.pinned)) is not None:
        return Wait(tuple(each for each in chosen if not each.evictable), short)
    chosen = _enough(short, holders, lambda _: True)
    return Refuse(short, tuple(each for each in chosen or () if each.pinned))


def shortage(needs: Figures, free: Figures) -> dict[str, int]:
    """Return how many bytes each pool lacks, of those that lack any."""
    lacking = {pool: size - free[pool] for pool, size in needs.items() if pool in free and size > 0}
    return {pool: size for pool, size in lacking.items() if size > 0}


def _enough(
    short: Figures, holders: Iterable[Holder], may: Callable[[Holder], bool]
) -> tuple[Holder, ...] | None:
    """Return those who make enough room by going, in order; None if all together do not."""
    chosen: list[Holder] = []
    for each in _in_order(holder for holder in holders if may(holder)):
        left = _left(short, chosen)
        if not left:
            break
        if any(each.uses.get(pool, 0) > 0 for pool in left):
            chosen.append(each)
    if _left(short, chosen):
        return None
    for each in list(chosen):  # what came later may make it needless
        rest = [other for other in chosen if other is not each]
        if not each.leaving and not _left(short, rest):
            chosen = rest
    return tuple(chosen)


def _left(short: Figures, going: Sequence[Holder]) -> dict[str, int]:
    left = {
        pool: size - sum(each.uses.get(pool, 0) for each in going) for pool, size in short.items()
    }
    return {pool: size for pool, size in left.items() if size > 0}


def _in_order(holders: Iterable[Holder]) -> tuple[Holder, ...]:
    """Sort: who goes anyway, then who can go now, each by when it was used last."""
    return tuple(
        sorted(holders, key=lambda each: (not each.leaving, not each.evictable, each.last_used))
    )
