"""The catalogue of models to start with, and which of them are suggested."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiplayground.cli._app import App
from aiplayground.cli.root import root
from aiplayground.devices import ComputeDevice
from aiplayground.specs import Device
from aiplayground_models.room import Room, rooms
from aiplayground_models.starters import DISK_RESERVE, PURPOSES, read_starters, suggest

GB = 10**9


def here(size: int) -> tuple[Room, ...]:
    return (Room("in main memory", size),)


STARTERS = read_starters()


@pytest.mark.parametrize("starter", STARTERS, ids=lambda each: each.id)
def test_an_entry_is_whole(starter: object) -> None:
    each = next(one for one in STARTERS if one is starter)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", each.repo)
    assert each.files
    assert all(name.endswith(".gguf") for name in each.files)
    assert each.good_for
    assert set(each.good_for) <= set(PURPOSES)
    assert ("vision" in each.good_for) == (len(each.files) == 2)
    assert 10**8 < each.size < each.memory
    assert each.context >= 2048
    assert each.licence


def test_ids_are_unique_and_every_purpose_is_served() -> None:
    assert len({each.id for each in STARTERS}) == len(STARTERS) >= 12
    assert {purpose for each in STARTERS for purpose in each.good_for} == set(PURPOSES)


@pytest.mark.parametrize("purpose", [None, *PURPOSES])
@pytest.mark.parametrize("memory", [0, 2 * GB, 8 * GB, 64 * GB])
def test_what_fits_comes_first_and_the_most_capable_on_top(
    purpose: str | None, memory: int
) -> None:
    found = suggest(STARTERS, memory=here(memory), disk=10**12, purpose=purpose)
    assert [each.fits for each in found] == sorted((each.fits for each in found), reverse=True)
    fitting = [each.starter.memory for each in found if each.fits]
    assert fitting == sorted(fitting, reverse=True)
    assert all(size <= memory for size in fitting)
    assert all(purpose is None or purpose in each.starter.good_for for each in found)


def test_the_disk_counts_too() -> None:
    small = min(STARTERS, key=lambda each: each.size)
    found = suggest([small], memory=here(64 * GB), disk=small.size + DISK_RESERVE - 1)
    assert not found[0].fits
    assert "disk" in found[0].why
    assert suggest([small], memory=here(64 * GB), disk=small.size + DISK_RESERVE)[0].fits


CARD = Device(id="gpu:0", name="NVIDIA Big", kind="GPU", memory=80 * GB)
CUDA = Device(id="CUDA0", name="NVIDIA Big", kind="GPU", memory=80 * GB, free=60 * GB)
VULKAN = Device(id="Vulkan0", name="NVIDIA Big", kind="GPU", memory=80 * GB, free=59 * GB)
CPU = ComputeDevice(device=Device(id="cpu", name="CPU", kind="CPU", memory=8 * GB))


def test_cards_that_an_engine_can_use_count() -> None:
    """One card under two names is one; one that no engine reports, or shares the RAM, is none."""
    card = ComputeDevice(device=CARD, known_as={"llamacpp-backend": (CUDA, VULKAN)})
    unknown = ComputeDevice(device=replace(CARD, id="gpu:1"))
    shared = replace(card, device=replace(CARD, kind="iGPU"))
    main = Room("in main memory", 4 * GB)
    assert rooms(4 * GB, [card, CPU]) == (Room("on NVIDIA Big", 59 * GB), main)
    assert rooms(4 * GB, [unknown, shared, CPU]) == (main,)
    assert rooms(4 * GB, [card, CPU], CPU) == (main,)
    other = replace(card, device=replace(CARD, id="gpu:2", name="Other"))
    assert rooms(4 * GB, [card, other], other)[0] == Room("on Other", 59 * GB)
    assert rooms(4 * GB, [card, other])[0].free == 118 * GB
    silent = replace(card, known_as={"one": (replace(CUDA, free=None),)})
    assert rooms(4 * GB, [silent])[0].free == 80 * GB


def test_a_card_takes_what_the_main_memory_cannot() -> None:
    large = max(STARTERS, key=lambda each: each.memory)
    there = (Room("on NVIDIA Big", 60 * GB), Room("in main memory", 4 * GB))
    (found,) = suggest([large], memory=there, disk=10**12)
    assert found.fits
    assert "60.0 GB are free on NVIDIA Big" in found.why
    (found,) = suggest([large], memory=there[1:], disk=10**12)
    assert not found.fits
    assert "there are 4.0 GB in main memory" in found.why


def test_the_command_prints_what_to_type(tmp_path: Path) -> None:
    args = ["--home", str(tmp_path), "models", "suggest", "--for", "chat", "--all"]
    told = CliRunner().invoke(root, args, obj=App(), catch_exceptions=False)
    assert told.exit_code == 0
    assert "aipg pull Qwen/Qwen3-4B-GGUF Qwen3-4B-Q4_K_M.gguf" in told.output
    listed = CliRunner().invoke(root, [*args, "--json"], obj=App(), catch_exceptions=False)
    said = json.loads(listed.output)
    assert {"id", "command", "fits", "why", "licence", "size"} <= set(said["models"][0])
    assert {"where", "free"} == set(said["memory"][-1])
