"""Names of devices by their PCI ids: Intel's GPUs and NPUs, and who makes the others.

Source of the ids: the Linux kernel's `include/drm/intel/pciids.h` and `ivpu_drv.h`, and the PCI ID
repository (pci-ids.ucw.cz). Memory is given where every card of that id has the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GIB = 2**30

INTEL, AMD, AMD_CPU, NVIDIA = 0x8086, 0x1002, 0x1022, 0x10DE

VENDORS: Mapping[int, str] = MappingProxyType(
    {
        INTEL: "Intel",
        AMD: "AMD",
        AMD_CPU: "AMD",
        NVIDIA: "NVIDIA",
        0x17CB: "Qualcomm",
        0x1DA3: "Habana Labs",
        0x1E52: "Tenstorrent",
        0x1ED5: "Moore Threads",
    }
)

DISPLAY_ONLY = frozenset({0x1013, 0x102B, 0x1234, 0x1414, 0x15AD, 0x18CA, 0x1A03, 0x1AF4, 0x1B36})
"""Makers of chips that show pictures and compute nothing: servers' consoles, virtual machines."""


@dataclass(frozen=True, slots=True)
class Known:
    """A device whose id is known; `memory` is its own, in bytes (0: it differs, or it has none)."""

    name: str
    kind: Literal["Arc", "iGPU", "NPU"]
    memory: int = 0


def _arc(name: str, gib: int = 0) -> Known:
    return Known(f"Intel Arc {name}", "Arc", gib * GIB)


def _integrated(name: str) -> Known:
    return Known(f"Intel {name}", "iGPU")


INTEL_GPUS: Mapping[int, Known] = MappingProxyType(
    {
        # Alchemist. The A770 exists with 8 and with 16 GB.
        0x5690: _arc("A770M Graphics", 16),
        0x5691: _arc("A730M Graphics", 12),
        0x5692: _arc("A550M Graphics", 8),
        0x5693: _arc("A370M Graphics", 4),
        0x5694: _arc("A350M Graphics", 4),
        0x5696: _arc("A570M Graphics", 8),
        0x5697: _arc("A530M Graphics"),
        0x56A0: _arc("A770 Graphics"),
        0x56A1: _arc("A750 Graphics", 8),
        0x56A2: _arc("A580 Graphics", 8),
        0x56A5: _arc("A380 Graphics", 6),
        0x56A6: _arc("A310 Graphics", 4),
        0x56B0: _arc("Pro A30M Graphics", 4),
        0x56B1: _arc("Pro A40/A50 Graphics", 6),
        0x56B2: _arc("Pro A60M Graphics", 12),
        0x56B3: _arc("Pro A60 Graphics", 12),
        0x56C0: Known("Intel Data Center GPU Flex 170", "Arc", 16 * GIB),
        0x56C1: Known("Intel Data Center GPU Flex 140", "Arc", 6 * GIB),
        # Battlemage
        0xE20B: _arc("B580 Graphics", 12),
        0xE20C: _arc("B570 Graphics", 10),
        0xE211: _arc("Pro B60 Graphics", 24),
        0xE212: _arc("Pro B50 Graphics", 16),
        # Integrated, newest first
        0xB080: _integrated("Graphics (Panther Lake)"),
        0x64A0: _integrated("Arc Graphics 130V/140V"),
        0x6420: _integrated("Graphics (Lunar Lake)"),
        0x7D51: _integrated("Arc Graphics 130T/140T"),
        0x7D41: _integrated("Graphics (Arrow Lake-U)"),
        0x7D67: _integrated("Graphics (Arrow Lake-S)"),
        0x7D55: _integrated("Arc Graphics (Meteor Lake)"),
        0x7D45: _integrated("Graphics (Meteor Lake)"),
        0x7D40: _integrated("Graphics (Meteor Lake)"),
        0xA780: _integrated("UHD Graphics 770"),
        0xA782: _integrated("UHD Graphics 730"),
        0xA7A0: _integrated("Iris Xe Graphics"),
        0xA7A1: _integrated("Iris Xe Graphics"),
        0xA7A8: _integrated("UHD Graphics"),
        0xA7A9: _integrated("UHD Graphics"),
        0x46A6: _integrated("Iris Xe Graphics"),
        0x46A8: _integrated("Iris Xe Graphics"),
        0x46A3: _integrated("UHD Graphics"),
        0x46D1: _integrated("UHD Graphics"),
        0x4680: _integrated("UHD Graphics 770"),
        0x4690: _integrated("UHD Graphics 770"),
        0x4692: _integrated("UHD Graphics 730"),
        0x4693: _integrated("UHD Graphics 710"),
        0x9A49: _integrated("Iris Xe Graphics"),
        0x9A40: _integrated("Iris Xe Graphics"),
        0x9A60: _integrated("UHD Graphics"),
    }
)

NPUS: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (INTEL, 0x7D1D): "Intel AI Boost (Meteor Lake)",
        (INTEL, 0xAD1D): "Intel AI Boost (Arrow Lake)",
        (INTEL, 0x643E): "Intel AI Boost (Lunar Lake)",
        (INTEL, 0xB03E): "Intel AI Boost (Panther Lake)",
        (AMD_CPU, 0x1502): "AMD XDNA NPU",
        (AMD_CPU, 0x17F0): "AMD XDNA 2 NPU",
    }
)
