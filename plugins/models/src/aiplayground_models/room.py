"""Which memories a model may go to here, and how much of each is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiplayground.devices import ComputeDevice
    from aiplayground.kernel import Kernel

OWN_MEMORY = frozenset({"Arc", "GPU"})
"""Kinds of devices that do not share the main memory."""


@dataclass(frozen=True, slots=True)
class Room:
    """A memory: where it is, in words, and its free bytes."""

    where: str
    free: int


async def look(kernel: Kernel) -> tuple[Room, ...]:
    """Measure this computer, its engines' devices included."""
    from aiplayground.memory import free_memory

    devices = await kernel.compute_devices()
    return rooms(await asyncio.to_thread(free_memory), devices, kernel.selected_device)


def rooms(
    main: int, devices: Sequence[ComputeDevice], selected: ComputeDevice | None = None
) -> tuple[Room, ...]:
    """Return the graphics cards that an engine reports, as one room, before the main memory. Pure.

    A device that was chosen is the only one that counts; one without memory of its own leaves the
    main memory alone. Layers are divided between several cards, so their memory adds up.
    """
    chosen = [each for each in devices if selected is None or each.id == selected.id]
    cards = [each for each in chosen if each.known_as and each.device.kind in OWN_MEMORY]
    free = sum(map(_free, cards))
    names = " and ".join(each.device.name for each in cards)
    return (*([Room(f"on {names}", free)] if free else []), Room("in main memory", main))


def _free(card: ComputeDevice) -> int:
    """Return what is free of a card as engines see it; its whole memory where none can tell."""
    known = [each.free for own in card.known_as.values() for each in own if each.free is not None]
    return min(known, default=card.device.memory)
