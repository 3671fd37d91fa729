"""What is free, and what is spoken for: from measured figures to those that a decision needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from aiplayground.memory import free_memory, private_memory
from aiplayground.specs import MemoryEstimate

from ._decide import LIMIT, MAIN, Holder

Key: TypeAlias = tuple[str, str]
"""A service and one of its models."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """Main memory at one moment: what is free, and what processes have to themselves, by pid.

    `settled` were loaded when it began: it may have missed what all others have taken since.
    `spare` is what models keep and can do without.
    """

    free: int
    taken: Mapping[int, int] = field(default_factory=dict)
    settled: frozenset[Key] = frozenset()
    spare: Mapping[Key, int] = field(default_factory=dict)


Probe: TypeAlias = Callable[[Collection[int]], Reading]
"""Measures; blocks for a moment."""


def measure(pids: Collection[int]) -> Reading:
    """Measure this computer. Blocks for a moment."""
    return Reading(free_memory(), {pid: private_memory([pid]) for pid in pids})


async def take(probe: Probe, pids: Collection[int]) -> Reading:
    """Measure in a thread."""
    return await asyncio.to_thread(probe, pids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A model that was promised memory, or has it.

    `estimate` is None where nobody could tell. `pid` is the process that has it, if it is known:
    only then can be told how much of the promise was taken. `spare` of that are caches, which no
    promise is about. `soft`: it may be asked to give them back.
    """

    key: Key
    estimate: MemoryEstimate | None
    pid: int | None = None
    moving: bool = False
    busy: int = 0
    last_used: float = 0.0
    pinned: bool = False
    leaving: bool = False
    soft: bool = False
    spare: int = 0


def holders_of(held: Collection[Held], reading: Reading) -> list[Holder]:
    """Return what each would give back by going."""
    return [
        Holder(
            service=each.key[0],
            model=each.key[1],
            uses=_uses(each, reading),
            busy=each.busy,
            last_used=each.last_used,
            pinned=each.pinned,
            moving=each.moving,
            leaving=each.leaving,
            soft=each.soft,
        )
        for each in held
    ]


def needs_of(estimate: MemoryEstimate) -> dict[str, int]:
    """Return what a model needs of each pool."""
    needs = {MAIN: estimate.in_main, LIMIT: estimate.in_main}
    if estimate.device is not None:
        needs[estimate.device.id] = estimate.on_device
    return needs


def free_for(
    estimate: MemoryEstimate,
    reading: Reading,
    held: Collection[Held],
    *,
    margin: int,
    limit: int | None,
) -> dict[str, int]:
    """Return what is free for one more model, by pool; a pool whose size is unknown is left out.

    What was promised and is not taken yet is not free, though the system calls it so: a context
    that is written later, weights that are mapped from a file, loads in progress.
    """
    owed = sum(_owed(each, reading) for each in held)
    free = {MAIN: reading.free - owed - margin}
    if limit is not None:
        free[LIMIT] = limit - sum(each.estimate.in_main for each in held if each.estimate)
    if estimate.device is not None and (room := _device_room(estimate, held)) is not None:
        free[estimate.device.id] = room - margin
    return free


def without_caches(held: Collection[Held], reading: Reading) -> tuple[list[Held], Reading]:
    """Return how it will be once all caches were given back."""
    given = {each.pid: each.spare for each in held if each.pid is not None}
    taken = {pid: max(0, size - given.get(pid, 0)) for pid, size in reading.taken.items()}
    free = reading.free + sum(each.spare for each in held)
    bare = [replace(each, spare=0, soft=False) for each in held]
    return bare, replace(reading, free=free, taken=taken)


def _device_room(estimate: MemoryEstimate, held: Collection[Held]) -> int | None:
    device = estimate.device
    assert device is not None
    there = [each for each in held if each.estimate and each.estimate.device == device]
    if device.free is not None:
        # What is loaded has taken its part; what is being loaded may not have.
        return device.free - sum(_on_device(each) for each in there if each.moving)
    return device.memory - sum(map(_on_device, there)) if device.memory else None


def _on_device(held: Held) -> int:
    return held.estimate.on_device if held.estimate else 0


def _taken(held: Held, reading: Reading) -> int | None:
    return None if held.pid is None else reading.taken.get(held.pid)


def _owed(held: Held, reading: Reading) -> int:
    if held.estimate is None:
        return 0
    taken = _taken(held, reading)
    if taken is None:
        # Nobody can tell how much: of what is loaded everything, of the others nothing.
        return held.estimate.in_main if held.moving else 0
    # Caches are not what was promised: that is still to come beside them.
    return max(0, held.estimate.in_main - max(0, taken - held.spare))


def _uses(held: Held, reading: Reading) -> dict[str, int]:
    taken = _taken(held, reading) or 0
    if held.estimate is None:
        return {MAIN: taken}
    uses = {MAIN: max(taken, held.estimate.in_main + held.spare), LIMIT: held.estimate.in_main}
    if held.estimate.device is not None:
        uses[held.estimate.device.id] = held.estimate.on_device
    return uses
