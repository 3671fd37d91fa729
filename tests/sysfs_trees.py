"""Whole computers as Linux shows them in `/sys`, links and all.

These are **not recorded from hardware**. They are written after the kernel's documentation: the
layout after `Documentation/filesystems/sysfs.rst` (devices in `/sys/devices`, links to them in
`/sys/class` and `/sys/bus`), the files of a PCI device after `Documentation/ABI/testing/
sysfs-bus-pci`, memory after what i915, xe and amdgpu document, PCI ids after the kernel's headers.
A driver that strays from its documentation is not seen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.device_trees import GIB, regions

MIB = 2**20
INTEL, AMD, AMD_CPU, NVIDIA, ASPEED = 0x8086, 0x1002, 0x1022, 0x10DE, 0x1A03
VGA, DISPLAY_3D, DISPLAY_OTHER, ACCELERATOR = 0x030000, 0x030200, 0x038000, 0x120000


@dataclass(frozen=True, kw_only=True)
class Pci:
    """A device on the PCI bus. `at` is its address, behind the bridges `behind`."""

    at: str
    ids: tuple[int, int]
    driver: str
    kind: int = VGA
    behind: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """More files, by their path below the device."""
    of_card: Mapping[str, str] = field(default_factory=dict)
    """More files of its DRM device."""


@dataclass(frozen=True, kw_only=True)
class Computer:
    """What a tree is made of, and what must be found: id, name, kind and memory in bytes."""

    cpu: str
    memory: int
    devices: Sequence[Pci] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    found: Sequence[tuple[str, str, str, int]] = ()


def build(root: Path, computer: Computer) -> Path:
    """Write a computer's tree into a folder."""
    _write(root / "proc/cpuinfo", computer.cpu)
    _write(root / "proc/meminfo", f"MemTotal:       {computer.memory // 1024} kB\n")
    for name, text in computer.files.items():
        _write(root / name, text)
    numbers = {"drm": 0, "accel": 0}
    for device in computer.devices:
        kind = "accel" if device.kind == ACCELERATOR else "drm"
        _add(root, device, kind, numbers[kind])
        numbers[kind] += 1
    return root


def _add(root: Path, device: Pci, kind: str, number: int) -> None:
    folder = root.joinpath("sys/devices/pci0000:00", *device.behind, device.at)
    uevent = f"DRIVER={device.driver}\nPCI_CLASS={device.kind:X}\nPCI_SLOT_NAME={device.at}\n"
    files = {
        "vendor": f"0x{device.ids[0]:04x}\n",
        "device": f"0x{device.ids[1]:04x}\n",
        "class": f"0x{device.kind:06x}\n",
        "uevent": uevent,
        "enable": "1\n",
        "numa_node": "-1\n",
        **device.files,
    }
    for name, text in files.items():
        _write(folder / name, text)
    nodes = [f"accel{number}"] if kind == "accel" else [f"card{number}", f"renderD{128 + number}"]
    for node in nodes:
        inside = folder / kind / node
        _write(inside / "uevent", f"MAJOR=226\nDEVNAME={kind}/{node}\n")
        (inside / "device").symlink_to("../..")
        _link(root / "sys/class" / kind / node, inside)
    for name, text in device.of_card.items():
        _write(folder / kind / nodes[0] / name, text)
    if kind == "drm":
        output = folder / kind / nodes[0] / f"{nodes[0]}-eDP-1"
        _write(output / "status", "connected\n")
        _link(root / "sys/class/drm" / output.name, output)
    _link(root / "sys/bus/pci/devices" / device.at, folder)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _intel(name: str) -> str:
    return f"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: {name}\n"


def _amd(name: str) -> str:
    return f"processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: {name}\n"


def _nvidia(address: str, model: str) -> dict[str, str]:
    text = f"Model: \t\t {model}\nIRQ:   \t\t 180\nBus Location: \t {address}\n"
    return {f"proc/driver/nvidia/gpus/{address}/information": text}


BRIDGES = ("0000:00:01.0", "0000:01:00.0", "0000:02:01.0")
"""How a discrete Arc hangs on its own switch."""

COMPUTERS: Mapping[str, Computer] = {
    "desktop with an Arc A770 (i915)": Computer(
        cpu=_intel("13th Gen Intel(R) Core(TM) i7-13700K"),
        memory=32 * GIB,
        devices=[
            Pci(at="0000:00:02.0", ids=(INTEL, 0xA780), driver="i915", files={
                "resource": regions(256 * MIB)}),
            Pci(at="0000:03:00.0", ids=(INTEL, 0x56A0), driver="i915", behind=BRIDGES,
                files={"resource": regions(16 * GIB)},
                of_card={"lmem_total_bytes": f"{16 * GIB - 128 * MIB}\n"}),
        ],
        found=[
            ("pci-0000:00:02.0", "Intel UHD Graphics 770", "iGPU", 32 * GIB),
            ("pci-0000:03:00.0", "Intel Arc A770 Graphics", "Arc", 16 * GIB - 128 * MIB),
        ],
    ),
    "workstation with two Arc B580 (xe)": Computer(
        cpu=_intel("Intel(R) Xeon(R) w5-2455X"),
        memory=128 * GIB,
        devices=[
            Pci(at=f"0000:{bus}:00.0", ids=(INTEL, 0xE20B), driver="xe",
                files={"resource": regions(16 * GIB),
                       "tile0/physical_vram_size_bytes": "0x2fa000000\n"})
            for bus in ("17", "65")
        ],
        found=[
            (f"pci-0000:{bus}:00.0", "Intel Arc B580 Graphics", "Arc", 0x2FA000000)
            for bus in ("17", "65")
        ],
    ),
    "laptop with integrated graphics and an NPU (Lunar Lake)": Computer(
        cpu=_intel("Intel(R) Core(TM) Ultra 7 258V"),
        memory=32 * GIB,
        devices=[
            Pci(at="0000:00:02.0", ids=(INTEL, 0x64A0), driver="xe",
                files={"resource": regions(256 * MIB)}),
            Pci(at="0000:00:0b.0", ids=(INTEL, 0x643E), driver="intel_vpu", kind=ACCELERATOR),
        ],
        found=[
            ("pci-0000:00:02.0", "Intel Arc Graphics 130V/140V", "iGPU", 32 * GIB),
            ("pci-0000:00:0b.0", "Intel AI Boost (Lunar Lake)", "NPU", 32 * GIB),
        ],
    ),
    "laptop with NVIDIA beside integrated graphics": Computer(
        cpu=_intel("12th Gen Intel(R) Core(TM) i7-12700H"),
        memory=16 * GIB,
        devices=[
            Pci(at="0000:00:02.0", ids=(INTEL, 0x46A6), driver="i915"),
            Pci(at="0000:01:00.0", ids=(NVIDIA, 0x28A0), driver="nvidia", kind=DISPLAY_3D,
                behind=("0000:00:06.0",), files={"resource": regions(8 * GIB)}),
        ],
        files=_nvidia("0000:01:00.0", "NVIDIA GeForce RTX 4060 Laptop GPU"),
        found=[
            ("pci-0000:00:02.0", "Intel Iris Xe Graphics", "iGPU", 16 * GIB),
            ("pci-0000:01:00.0", "NVIDIA GeForce RTX 4060 Laptop GPU", "GPU", 8 * GIB),
        ],
    ),
    "desktop with a Radeon (amdgpu)": Computer(
        cpu=_amd("AMD Ryzen 9 7900X 12-Core Processor"),
        memory=64 * GIB,
        devices=[
            Pci(at="0000:03:00.0", ids=(AMD, 0x744C), driver="amdgpu",
                files={"mem_info_vram_total": f"{24560 * MIB}\n",
                       "product_name": "AMD Radeon RX 7900 XTX\n"}),
        ],
        found=[("pci-0000:03:00.0", "AMD Radeon RX 7900 XTX", "GPU", 24560 * MIB)],
    ),
    "laptop with an AMD NPU": Computer(
        cpu=_amd("AMD Ryzen AI 9 HX 370 w/ Radeon 890M"),
        memory=32 * GIB,
        devices=[
            Pci(at="0000:c5:00.0", ids=(AMD, 0x150E), driver="amdgpu", kind=DISPLAY_OTHER,
                behind=("0000:00:08.1",), files={"mem_info_vram_total": f"{4 * GIB}\n"}),
            Pci(at="0000:c6:00.1", ids=(AMD_CPU, 0x17F0), driver="amdxdna", kind=ACCELERATOR,
                behind=("0000:00:08.2",)),
        ],
        found=[
            ("pci-0000:c5:00.0", "AMD GPU (1002:150e)", "GPU", 4 * GIB),
            ("pci-0000:c6:00.1", "AMD XDNA 2 NPU", "NPU", 32 * GIB),
        ],
    ),
    "server with several accelerators and a console": Computer(
        cpu=_intel("Intel(R) Xeon(R) Platinum 8480+"),
        memory=512 * GIB,
        devices=[
            Pci(at="0000:02:00.0", ids=(ASPEED, 0x2000), driver="ast"),
            Pci(at="0000:17:00.0", ids=(NVIDIA, 0x2331), driver="nvidia", kind=DISPLAY_3D,
                files={"resource": regions(128 * GIB)}),
            Pci(at="0000:2a:00.0", ids=(INTEL, 0x56C0), driver="i915", kind=DISPLAY_OTHER,
                files={"resource": regions(16 * GIB)}),
        ],
        files=_nvidia("0000:17:00.0", "NVIDIA H100 PCIe"),
        found=[
            # The window is a power of two; what the card has, its own engines tell.
            ("pci-0000:17:00.0", "NVIDIA H100 PCIe", "GPU", 128 * GIB),
            ("pci-0000:2a:00.0", "Intel Data Center GPU Flex 170", "Arc", 16 * GIB),
        ],
    ),
    "virtual machine": Computer(
        cpu=_intel("Intel Xeon Processor (SapphireRapids)"),
        memory=8 * GIB,
        devices=[Pci(at="0000:00:01.0", ids=(0x1AF4, 0x1050), driver="virtio-pci")],
    ),
    "board whose graphics are on no PCI bus": Computer(
        cpu="processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
        memory=8 * GIB,
        files={"sys/class/drm/card0/device/uevent": "DRIVER=v3d\nOF_NAME=v3d\n"},
    ),
    "nothing but a processor": Computer(
        cpu=_amd("AMD EPYC 9654 96-Core Processor"), memory=4 * GIB
    ),
}  # fmt: skip
