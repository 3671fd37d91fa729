"""One list from several: the same card, as the system shows it and as engines call it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aiplayground.errors import InvalidParameters
from aiplayground.specs import Device

_NOISE = re.compile(r"\((?:r|tm|c)\)|[®™]|\([^)]*\)")
_IDLE_WORDS = frozenset({"graphics", "corporation", "gpu", "device", "the"})
_GPU_KINDS = frozenset({"Arc", "iGPU", "GPU"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeDevice:
    """A device, and what plugins call it: `known_as` is from a plugin's name to its own devices.

    `id` stays the same as long as the hardware does; `memory` is in bytes.
    """

    device: Device
    known_as: Mapping[str, tuple[Device, ...]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What a selection is kept by."""
        return self.device.id

    @property
    def aliases(self) -> tuple[str, ...]:
        """The ids that plugins give it, without repetitions."""
        ids = (each.id for known in self.known_as.values() for each in known)
        return tuple(dict.fromkeys(each for each in ids if each != self.id))


def merge(
    system: Sequence[Device], plugins: Iterable[tuple[str, Sequence[Device]]]
) -> list[ComputeDevice]:
    """Join the lists. Cards of the same name are paired in their order.

    A plugin may know a card under several of its engines' names (`CUDA0`, `Vulkan0`): each series
    of names is paired on its own.
    """
    found = [ComputeDevice(device=each) for each in system]
    for plugin, devices in plugins:
        claimed: set[tuple[str, int]] = set()
        for device in devices:
            series = device.id.rstrip("0123456789")
            place = _place(found, device, {at for name, at in claimed if name == series})
            if place is None:
                place = len(found)
                found.append(ComputeDevice(device=_with_free_id(device, plugin, found)))
            claimed.add((series, place))
            found[place] = _known_as(found[place], plugin, device)
    return found


def _place(found: Sequence[ComputeDevice], device: Device, claimed: set[int]) -> int | None:
    for place, each in enumerate(found):
        if place not in claimed and same(each.device, device):
            return place
    return None


def same(one: Device, other: Device) -> bool:
    """Whether two descriptions can be of one device."""
    if one.kind in _GPU_KINDS and other.kind in _GPU_KINDS:
        first, second = words(one.name), words(other.name)
        return bool(first and second) and (first <= second or second <= first)
    return one.kind == other.kind  # there is one CPU, and so far one NPU


def words(name: str) -> frozenset[str]:
    """Return what tells a device's name from another: `Intel(R) Arc(TM) A770` is `Intel Arc A770`.

    The chip in parentheses is left out.
    """
    plain = _NOISE.sub(" ", name.lower())
    return frozenset(re.findall(r"[a-z0-9]+", plain)) - _IDLE_WORDS


def _with_free_id(device: Device, plugin: str, found: Iterable[ComputeDevice]) -> Device:
    taken = any(each.id == device.id for each in found)
    return replace(device, id=f"{plugin}/{device.id}") if taken else device


def _known_as(each: ComputeDevice, plugin: str, device: Device) -> ComputeDevice:
    known = {**each.known_as, plugin: (*each.known_as.get(plugin, ()), device)}
    memory = each.device.memory or device.memory
    return ComputeDevice(device=replace(each.device, memory=memory), known_as=known)


def find_device(devices: Sequence[ComputeDevice], wanted: str) -> ComputeDevice:
    """Return the device of an id, or of a name that means one alone.

    Raises `InvalidParameters` whose details list the candidates.
    """
    plain = wanted.strip().casefold()
    for matching in (
        [each for each in devices if each.id.casefold() == plain],
        [each for each in devices if plain in (alias.casefold() for alias in each.aliases)],
        [each for each in devices if each.device.name.casefold() == plain],
        [each for each in devices if words(wanted) and words(wanted) <= words(each.device.name)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise _refused(f"'{wanted}' can mean several devices. Give the id of one", matching)
    raise _refused(f"There is no device '{wanted}'. These are here", devices)


def _refused(what: str, devices: Iterable[ComputeDevice]) -> InvalidParameters:
    candidates = [{"id": each.id, "name": each.device.name} for each in devices]
    listed = "; ".join(f"{each['id']} ({each['name']})" for each in candidates)
    return InvalidParameters(f"{what}: {listed}.", details={"candidates": candidates})
