"""What a model takes by the size of its files: for backends that do not estimate themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiplayground.devices import system_devices
from aiplayground.specs import Device, MemoryEstimate

from ._desk import Admission

if TYPE_CHECKING:
    import logging

    from aiplayground._service import Service
    from aiplayground.kernel import Kernel

SHARE = 10
"""One part in so many of the weights is taken as what a context and a step need in addition."""

OWN_MEMORY = frozenset({"Arc", "GPU"})
"""Kinds of devices that have memory of their own."""

NOTE = "The backend does not say what its models take: this is the size of the files and a tenth."


def rough_estimate(
    size: int | None, selected: Sequence[Device], system: Sequence[Device]
) -> MemoryEstimate | None:
    """Return an estimate from the bytes of the files; None where it would say nothing.

    `selected` is the device that was chosen for the backend, `system` what there is. With graphics
    memory beside the main memory, and none of both chosen, nobody knows where the model will be.
    """
    if not size:
        return None
    device = next((each for each in selected if each.kind in OWN_MEMORY), None)
    if not selected and any(each.kind in OWN_MEMORY for each in system):
        return None
    made = MemoryEstimate(weights=size, other=size // SHARE, rough=True, notes=(NOTE,))
    if device is None:
        return made
    return MemoryEstimate(
        weights=size,
        other=size // SHARE,
        rough=True,
        notes=(NOTE,),
        device=device,
        on_device=made.total,
    )


def make_admission(
    kernel: Kernel, services: Mapping[str, Service], logger: logging.Logger
) -> Admission:
    """Return the admission of a kernel."""

    async def fallback(service: str, model: str) -> MemoryEstimate | None:
        size = await kernel.model_size(service, model)
        if not size:
            return None
        system = await asyncio.to_thread(system_devices)
        return rough_estimate(size, kernel.selected_for(service), system)

    return Admission(services, kernel.settings, fallback, logger)
