"""Single devices as Linux shows them, written into a folder.

Written after the kernel's documentation, not recorded from hardware; whole computers, with the
links that `/sys` is made of, are in `sysfs_trees`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiplayground.specs import Device

GIB = 2**30
MEMORY = 32 * 1024 * 1024
"""Main memory of such a computer, in kB."""


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write a tree of small files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def computer(cpu: str = "Intel(R) Core(TM) Ultra 7 155H") -> dict[str, str]:
    return {
        "proc/cpuinfo": f"processor\t: 0\nmodel name\t: {cpu}\nprocessor\t: 1\n",
        "proc/meminfo": f"MemTotal:       {MEMORY} kB\nMemFree: 1 kB\n",
    }


def card(number: int, vendor: int, device: int, address: str, **more: str) -> dict[str, str]:
    """Return a GPU as `/sys/class/drm/cardN` shows it, with its outputs and render node."""
    folder = f"sys/class/drm/card{number}/device"
    files = {
        f"{folder}/vendor": f"0x{vendor:04x}\n",
        f"{folder}/device": f"0x{device:04x}\n",
        f"{folder}/class": "0x030000\n",
        f"{folder}/uevent": f"DRIVER=xe\nPCI_CLASS=30000\nPCI_SLOT_NAME={address}\n",
        f"sys/class/drm/card{number}-HDMI-A-1/status": "connected\n",
        f"sys/class/drm/renderD{128 + number}/device/vendor": f"0x{vendor:04x}\n",
    }
    return files | {f"{folder}/{name}": text for name, text in more.items()}


def npu(number: int, vendor: int, device: int, address: str) -> dict[str, str]:
    folder = f"sys/class/accel/accel{number}/device"
    return {
        f"{folder}/vendor": f"0x{vendor:04x}\n",
        f"{folder}/device": f"0x{device:04x}\n",
        f"{folder}/uevent": f"DRIVER=intel_vpu\nPCI_SLOT_NAME={address}\n",
    }


def regions(size: int, flags: int = 0x14220C) -> str:
    """Return a `resource` file with registers, a memory region of `size` bytes, and no more."""
    begin = 0x380000000000
    return (
        f"0x{0x85000000:016x} 0x{0x85FFFFFF:016x} 0x{0x140204:016x}\n"
        f"0x{0:016x} 0x{0:016x} 0x{0:016x}\n"
        f"0x{begin:016x} 0x{begin + size - 1:016x} 0x{flags:016x}\n"
    )


CPU = Device(id="cpu", name="Intel(R) Core(TM) Ultra 7 155H", kind="CPU", memory=MEMORY * 1024)
