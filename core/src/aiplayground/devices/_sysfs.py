"""The devices that Linux shows under `/sys`; elsewhere the CPU alone.

Source: the kernel's `Documentation/ABI/testing/sysfs-bus-pci` (vendor, device, class, resource),
and what the drivers i915 (`lmem_total_bytes`), xe (`tile*/physical_vram_size_bytes`) and amdgpu
(`mem_info_vram_total`) add. Reads a few small files and nothing else; the root can be a recording.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

from aiplayground.specs import Device

from . import _pci

_CARD = re.compile(r"card\d+")
_ADDRESS = re.compile(r"^PCI_SLOT_NAME=([0-9a-fA-F:.]+)$", re.MULTILINE)
_PREFETCHABLE = 0x2000
"""The flag of a region in `resource` that is memory without side effects (IORESOURCE_PREFETCH)."""
_LEAST_MEMORY = 2**30
"""A smaller region is the window onto a card's memory (256 MiB), not its size."""
_MOST_READ = 64 * 1024
_CPU_NAME = re.compile(r"^(?:model name|Model)\s*:\s*(.+)$", re.MULTILINE)
_TOTAL = re.compile(r"^MemTotal:\s*(\d+) kB$", re.MULTILINE)


def system_devices(root: Path = Path("/")) -> list[Device]:
    """Return GPUs, NPUs, and the CPU, which is always there. Blocks for a moment.

    `memory` of a GPU with its own is that; of an integrated one, a CPU or an NPU the main memory.
    """
    shared = main_memory(root)
    found = [*_gpus(root, shared), *_npus(root, shared)]
    return [*found, Device(id="cpu", name=cpu_name(root), kind="CPU", memory=shared)]


def _gpus(root: Path, shared: int) -> Iterator[Device]:
    for card in _entries(root / "sys/class/drm"):
        if not _CARD.fullmatch(card.name):
            continue  # an output of a card, or its second door
        folder = card / "device"
        vendor, device = _number(folder / "vendor"), _number(folder / "device")
        is_display = (_number(folder / "class") or 0) >> 16 == 0x03
        if vendor is None or device is None or not is_display or vendor in _pci.DISPLAY_ONLY:
            continue
        yield _gpu(root, folder, (vendor, device), shared)


def _gpu(root: Path, folder: Path, ids: tuple[int, int], shared: int) -> Device:
    address = _address(folder)
    known = _pci.INTEL_GPUS.get(ids[1]) if ids[0] == _pci.INTEL else None
    integrated = known.kind == "iGPU" if known else _is_integrated(ids[0], address)
    own = 0 if integrated else _own_memory(folder) or (known.memory if known else 0)
    return Device(
        id=f"pci-{address}" if address else f"pci-{ids[0]:04x}-{ids[1]:04x}",
        name=known.name if known else _other_name(root, folder, ids, address),
        kind=known.kind if known else "iGPU" if integrated else "GPU",
        memory=shared if integrated else own or _largest_region(folder),
    )


def _is_integrated(vendor: int, address: str) -> bool:
    # Intel's integrated graphics have had this one address since they exist.
    return vendor == _pci.INTEL and address.endswith(":00:02.0")


def _other_name(root: Path, folder: Path, ids: tuple[int, int], address: str) -> str:
    told = _text(folder / "product_name").strip()
    information = _text(root / "proc/driver/nvidia/gpus" / address / "information")
    model = re.search(r"^Model:\s*(.+)$", information, re.MULTILINE)
    vendor = _pci.VENDORS.get(ids[0])
    told = told or (model[1].strip() if model else "")
    if told:
        return told if vendor is None or vendor in told else f"{vendor} {told}"
    return f"{vendor or 'Unknown'} GPU ({ids[0]:04x}:{ids[1]:04x})"


def _own_memory(folder: Path) -> int:
    for name in ("lmem_total_bytes", "drm_lmem_total_bytes", "mem_info_vram_total"):
        if total := _number(folder / name):
            return total
    for card in _entries(folder / "drm"):
        if total := _number(card / "lmem_total_bytes"):
            return total
    tiles = (_number(each / "physical_vram_size_bytes") for each in folder.glob("tile*"))
    return sum(size for size in tiles if size)


def _largest_region(folder: Path) -> int:
    """Return the size of the largest memory region, which is that of the memory on newer boards."""
    largest = 0
    for line in _text(folder / "resource").splitlines():
        parts = line.split()
        if len(parts) == 3 and all(part.startswith("0x") for part in parts):
            begin, end, flags = (int(part, 16) for part in parts)
            if flags & _PREFETCHABLE and end > begin:
                largest = max(largest, end - begin + 1)
    return largest if largest >= _LEAST_MEMORY else 0


def _npus(root: Path, shared: int) -> Iterator[Device]:
    for each in _entries(root / "sys/class/accel"):
        vendor, device = (_number(each / "device" / name) for name in ("vendor", "device"))
        if vendor is None or device is None:
            continue
        address = _address(each / "device")
        maker = _pci.VENDORS.get(vendor, "Unknown")
        name = _pci.NPUS.get((vendor, device), f"{maker} NPU ({vendor:04x}:{device:04x})")
        id_ = f"pci-{address}" if address else f"pci-{vendor:04x}-{device:04x}"
        yield Device(id=id_, name=name, kind="NPU", memory=shared)


def cpu_name(root: Path) -> str:
    """Return the processor's name as the system gives it."""
    found = _CPU_NAME.search(_text(root / "proc/cpuinfo"))
    name = found[1] if found else platform.processor() or platform.machine() or "CPU"
    return " ".join(name.split())


def main_memory(root: Path) -> int:
    """Return the main memory in bytes."""
    found = _TOTAL.search(_text(root / "proc/meminfo"))
    if found:
        return int(found[1]) * 1024
    import psutil  # slow to import, and only asked where there is no /proc

    return int(psutil.virtual_memory().total)


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, `card2` before `card10`; nothing if it is not there."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return []
    return sorted(found, key=lambda each: (len(each.name), each.name))


def _address(folder: Path) -> str:
    found = _ADDRESS.search(_text(folder / "uevent"))
    return found[1].lower() if found else ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    try:
        return int(text, 0)
    except ValueError:
        return None


def _text(path: Path) -> str:
    """Return the beginning of a small file; nothing if it cannot be read, as drivers may refuse."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""
