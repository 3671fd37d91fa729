"""Devices: what a computer shows, joined lists, and the choice of one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.device_trees import CPU, GIB, card, computer, npu, regions, write
from tests.fakes import Fake, kernel, status
from tests.sysfs_trees import COMPUTERS, build

from aiplayground.context import ServiceContext
from aiplayground.devices import DeviceDesk, find_device, merge, system_devices
from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Device

MAIN = CPU.memory
INTEL, AMD, NVIDIA = 0x8086, 0x1002, 0x10DE
NVIDIA_FILE = "proc/driver/nvidia/gpus/0000:01:00.0/information"


def one(tmp_path: Path, *parts: dict[str, str]) -> Device:
    """Return the one device beside the CPU."""
    files = computer()
    for part in parts:
        files |= part
    [device, cpu] = system_devices(write(tmp_path, files))
    assert cpu == CPU
    return device


# What the system shows ------------------------------------------------------------------------


def test_a_computer_without_anything_has_a_cpu(tmp_path: Path) -> None:
    [cpu] = system_devices(tmp_path)
    assert (cpu.id, cpu.kind) == ("cpu", "CPU")
    assert cpu.memory > 0
    assert cpu.name


def test_this_computer_is_read() -> None:
    assert [each.kind for each in system_devices()][-1] == "CPU"


@pytest.mark.parametrize("name", COMPUTERS)
def test_whole_computers(tmp_path: Path, name: str) -> None:
    computer = COMPUTERS[name]
    found = system_devices(build(tmp_path, computer))
    *others, cpu = [(each.id, each.name, each.kind, each.memory) for each in found]
    assert others == list(computer.found)
    assert (cpu[0], cpu[2], cpu[3]) == ("cpu", "CPU", computer.memory)
    assert cpu[1]
    assert cpu[1] in computer.cpu


@pytest.mark.parametrize(
    ("device", "more", "memory"),
    [
        (0x56A0, {"resource": regions(16 * GIB)}, 16 * GIB),  # resizable BAR shows all
        (0x56A0, {"resource": regions(GIB // 4)}, 0),  # the small window says nothing
        (0x56A0, {"resource": regions(16 * GIB, flags=0x140204)}, 0),  # registers, not memory
        (0x56A0, {"lmem_total_bytes": str(8 * GIB)}, 8 * GIB),
        (0x56A0, {"drm/card1/lmem_total_bytes": str(8 * GIB)}, 8 * GIB),
        (0xE20B, {"resource": regions(16 * GIB)}, 12 * GIB),  # BARs are powers of two
        (0xE20B, {"tile0/physical_vram_size_bytes": "0x2f0000000"}, 0x2F0000000),
        (0x56A5, {"resource": "not a table"}, 6 * GIB),
    ],
)
def test_memory_of_arc_cards(
    tmp_path: Path, device: int, more: dict[str, str], memory: int
) -> None:
    found = one(tmp_path, card(1, INTEL, device, "0000:03:00.0", **more))
    assert (found.id, found.kind, found.memory) == ("pci-0000:03:00.0", "Arc", memory)
    assert found.name.startswith("Intel Arc ")


def test_integrated_graphics_share_the_main_memory(tmp_path: Path) -> None:
    found = one(tmp_path, card(0, INTEL, 0x7D55, "0000:00:02.0", resource=regions(16 * GIB)))
    assert found.name == "Intel Arc Graphics (Meteor Lake)"
    assert (found.kind, found.memory) == ("iGPU", MAIN)


def test_an_intel_id_of_tomorrow(tmp_path: Path) -> None:
    integrated = one(tmp_path / "a", card(0, INTEL, 0xFFFE, "0000:00:02.0"))
    assert (integrated.kind, integrated.name) == ("iGPU", "Intel GPU (8086:fffe)")
    discrete = one(tmp_path / "b", card(0, INTEL, 0xFFFE, "0000:03:00.0", resource=regions(GIB)))
    assert (discrete.kind, discrete.memory) == ("GPU", GIB)


def test_other_makers(tmp_path: Path) -> None:
    amd = card(0, AMD, 0x744C, "0000:0b:00.0", mem_info_vram_total=str(24 * GIB))
    assert one(tmp_path / "amd", amd).memory == 24 * GIB
    named = amd | {"sys/class/drm/card0/device/product_name": "Radeon RX 7900 XTX\n"}
    assert one(tmp_path / "named", named).name == "AMD Radeon RX 7900 XTX"
    nvidia = card(0, NVIDIA, 0x2684, "0000:01:00.0", resource=regions(32 * GIB))
    told = {NVIDIA_FILE: "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ: 1\n"}
    found = one(tmp_path / "nvidia", nvidia, told)
    assert (found.name, found.kind) == ("NVIDIA GeForce RTX 4090", "GPU")
    assert one(tmp_path / "bare", nvidia).name == "NVIDIA GPU (10de:2684)"
    assert one(tmp_path / "other", card(0, 0x1ED5, 0x0222, "0000:05:00.0")).name.startswith("Moore")


def test_npus(tmp_path: Path) -> None:
    intel = one(tmp_path / "intel", npu(0, INTEL, 0x7D1D, "0000:00:0b.0"))
    assert intel == Device(
        id="pci-0000:00:0b.0", name="Intel AI Boost (Meteor Lake)", kind="NPU", memory=MAIN
    )
    assert one(tmp_path / "amd", npu(0, 0x1022, 0x17F0, "0000:c5:00.1")).name == "AMD XDNA 2 NPU"
    other = one(tmp_path / "other", npu(0, 0x1DA3, 0x1000, "0000:c5:00.1"))
    assert other.name == "Habana Labs NPU (1da3:1000)"


@pytest.mark.parametrize("vendor", [0x1234, 0x1AF4, 0x1A03, 0x15AD])
def test_chips_that_only_show_pictures_are_left_out(tmp_path: Path, vendor: int) -> None:
    tree = write(tmp_path, computer() | card(0, vendor, 0x1111, "0000:00:01.0"))
    assert system_devices(tree) == [CPU]


def test_damaged_entries_are_left_out(tmp_path: Path) -> None:
    files = computer() | card(0, INTEL, 0x56A0, "0000:03:00.0")
    files["sys/class/drm/card0/device/vendor"] = "what\n"
    files["sys/class/accel/accel0/device/vendor"] = ""
    assert system_devices(write(tmp_path, files)) == [CPU]


def test_cards_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    files = computer()
    for number in (10, 2, 1):
        files |= card(number, INTEL, 0x56A1, f"0000:{number:02x}:00.0")
    ids = [each.id for each in system_devices(write(tmp_path, files))]
    assert ids == ["pci-0000:01:00.0", "pci-0000:02:00.0", "pci-0000:0a:00.0", "cpu"]


# One list from several ------------------------------------------------------------------------

A = Device(id="pci-a", name="Intel Arc A770 Graphics", kind="Arc", memory=0)
B = Device(id="pci-b", name="Intel Arc A770 Graphics", kind="Arc", memory=8)
VULKAN = [
    Device(id=f"Vulkan{i}", name="Intel(R) Arc(tm) A770 Graphics (DG2)", kind="Arc", memory=16)
    for i in range(2)
]
SYCL = [Device(id=f"SYCL{i}", name="Intel(R) Arc(TM) A770", kind="GPU") for i in range(2)]


def test_the_same_card_is_one_device() -> None:
    found = merge([A, CPU], [("llama", VULKAN[:1]), ("ov", [Device(id="C", name="x", kind="CPU")])])
    assert [(each.id, each.aliases, each.device.memory) for each in found] == [
        ("pci-a", ("Vulkan0",), 16),
        ("cpu", ("C",), CPU.memory),
    ]


def test_twins_are_paired_in_their_order_for_each_series() -> None:
    found = merge([A, B], [("llama", [*SYCL, *VULKAN])])
    assert [each.aliases for each in found] == [("SYCL0", "Vulkan0"), ("SYCL1", "Vulkan1")]


def test_what_the_system_does_not_show_is_listed_as_the_plugin_says() -> None:
    cuda = Device(id="CUDA0", name="NVIDIA H100", kind="GPU", memory=80)
    other = Device(id="CUDA0", name="NVIDIA A10", kind="GPU")
    found = merge([CPU], [("one", [cuda]), ("two", [cuda, other])])
    assert [each.id for each in found] == ["cpu", "CUDA0", "two/CUDA0"]
    assert set(found[1].known_as) == {"one", "two"}


def test_an_arc_is_not_every_arc() -> None:
    other = Device(id="Vulkan0", name="Intel(R) Arc(tm) A380 Graphics", kind="Arc")
    assert len(merge([A], [("llama", [other])])) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("pci-a", "pci-a"),
        ("PCI-A", "pci-a"),
        ("vulkan0", "pci-a"),
        ("cpu", "cpu"),
        ("Intel Arc A770", "pci-a"),
        ("Intel(R) Arc(TM) A770 Graphics", "pci-a"),
        ("a770", "pci-a"),
    ],
)
def test_devices_are_found_by_id_and_name(wanted: str, found: str) -> None:
    assert find_device(merge([A, CPU], [("llama", VULKAN[:1])]), wanted).id == found


@pytest.mark.parametrize("wanted", ["a770", "Intel Arc A770 Graphics", "intel", "H100", "", "()"])
def test_a_name_that_means_none_or_several_lists_the_candidates(wanted: str) -> None:
    with pytest.raises(InvalidParameters) as refused:
        find_device(merge([A, B], []), wanted)
    assert refused.value.details["candidates"] == [
        {"id": "pci-a", "name": A.name},
        {"id": "pci-b", "name": B.name},
    ]


# In a kernel ----------------------------------------------------------------------------------


class Engine(Fake):
    """Knows devices, and notes which one a start was told to use."""

    def __init__(
        self, name: str, devices: Callable[[], Sequence[Device]], fails: bool = False
    ) -> None:
        super().__init__(name)
        self.list = devices
        self.starts: list[tuple[str, ...]] = []
        self.fails = fails

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.starts.append(tuple(each.id for each in ctx.selected_devices))
        if self.fails and len(self.starts) > 1:
            raise ServiceNotAvailable("no such device")

    @hookimpl
    def detect_devices(self) -> Sequence[Device]:
        return self.list()


def with_tree(one: Kernel, tmp_path: Path, *cards: dict[str, str]) -> Kernel:
    """Let a kernel see such a computer."""
    files = computer()
    for each in cards:
        files |= each
    one.device_desk = DeviceDesk(one, write(tmp_path / "tree", files))
    return one


A770 = card(0, INTEL, 0x56A0, "0000:03:00.0", resource=regions(16 * GIB))


async def test_devices_have_the_documented_shape(tmp_path: Path) -> None:
    engine = Engine("engine", lambda: VULKAN[:1])
    async with with_tree(kernel(tmp_path, engine), tmp_path, A770) as one:
        assert await one.call("detectDevices") == [
            {
                "name": "Intel Arc A770 Graphics",
                "id": "pci-0000:03:00.0",
                "type": "Arc",
                "vram": 16 * GIB,
                "aliases": ["Vulkan0"],
                "selected": False,
            },
            {
                "name": CPU.name,
                "id": "cpu",
                "type": "CPU",
                "vram": MAIN,
                "aliases": [],
                "selected": False,
            },
        ]


async def test_running_services_restart_onto_the_choice(tmp_path: Path) -> None:
    user, idle = Engine("user", lambda: VULKAN[:1]), Engine("idle", lambda: VULKAN[:1])
    other = Engine("other", lambda: [Device(id="C", name="c", kind="CPU")])
    plugins = (user, idle, other)
    async with with_tree(kernel(tmp_path, *plugins), tmp_path, A770) as one:
        await one.start("user")
        await one.start("other")
        assert await one.call("selectDevice", "Intel Arc A770") is None
        await one.call("selectDevice", "vulkan0")  # the same one: nothing restarts
        assert (user.starts, idle.starts, other.starts) == ([(), ("Vulkan0",)], [], [()])
        assert one.service("user").status == "Running"
        assert [each["selected"] for each in await one.call("detectDevices")] == [True, False]
    again = Engine("user", list)
    async with kernel(tmp_path, again) as one:  # the choice outlives the kernel
        assert one.selected_device is not None
        assert one.selected_device.id == "pci-0000:03:00.0"
        await one.start("user")
        assert again.starts == [("Vulkan0",)]
        await one.call("selectDevice", "auto")
        assert one.selected_device is None
        assert again.starts == [("Vulkan0",), ()]


async def test_a_service_that_does_not_come_up_on_it_is_told(tmp_path: Path) -> None:
    engine = Engine("engine", lambda: VULKAN[:1], fails=True)
    async with with_tree(kernel(tmp_path, engine), tmp_path, A770) as one:
        await one.start("engine")
        with pytest.raises(ServiceNotAvailable, match=r"selected, but .* no such device"):
            await one.call("selectDevice", "A770")
        assert one.selected_device is not None


async def test_plugins_that_hang_or_fail_are_left_out(tmp_path: Path) -> None:
    stuck = threading.Event()

    def hang() -> Sequence[Device]:
        stuck.wait(60)
        return []

    def fail() -> Sequence[Device]:
        raise OSError("no driver")

    def wrong() -> Any:
        return ["GPU"]

    engines = [Engine("hangs", hang), Engine("fails", fail), Engine("wrong", wrong)]
    settings = {"timeouts": {"detect": 0.2}}
    good = Engine("good", lambda: VULKAN[:1])
    try:
        async with with_tree(kernel(tmp_path, *engines, good, settings=settings), tmp_path) as one:
            found = await one.compute_devices()
            assert [each.id for each in found] == ["cpu", "Vulkan0"]
            await one.start("hangs")
            await status(one, "hangs", "Running")
    finally:
        stuck.set()


async def test_a_system_that_hangs_still_has_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(
        "aiplayground.devices._selection.system_devices", lambda root: stuck.wait(60)
    )
    monkeypatch.setattr("aiplayground.devices._selection.SYSTEM_DEADLINE", 0.05)
    try:
        async with kernel(tmp_path) as one:
            assert [each.id for each in await one.compute_devices()] == ["cpu"]
    finally:
        stuck.set()


async def test_callers_at_the_same_time_share_one_look(tmp_path: Path) -> None:
    looks: list[int] = []

    def look() -> Sequence[Device]:
        looks.append(1)
        return []

    engine = Engine("engine", look)
    async with kernel(tmp_path, engine) as one:
        await asyncio.gather(*(one.compute_devices() for _ in range(20)))
        assert looks == [1]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"device": {"id": 1}, "known": {}}', "null"])
async def test_a_damaged_note_counts_as_no_choice(tmp_path: Path, note: str) -> None:
    async with kernel(tmp_path) as one:
        path = one.paths.state / "device.json"
    path.write_text(note)
    async with kernel(tmp_path) as one:
        assert one.selected_device is None
        await one.call("selectDevice", "cpu")
        assert json.loads(path.read_text())["device"]["id"] == "cpu"
