"""The devices of this computer as both engines see them, each asked in a process that may die.

Ids are llama.cpp's own names (`CUDA0`, `Vulkan1`), which are those that the setting `devices` takes
and which stay the same as long as the computer and the build do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from aiplayground.errors import AIPlaygroundError
from aiplayground.specs import Device

from .backends import CPU, GPU, IGPU

SERVICE = "llamacpp-backend"
DEADLINE = 10.0
"""Seconds for all engines together; one that takes longer is ended and shows nothing."""

MODULE = "aiplayground_llamacpp.list_devices"

Kind = Literal["Arc", "iGPU", "GPU", "NPU", "CPU"]


def detect() -> list[Device]:
    """Return the devices of the engines that are installed; blocks for `DEADLINE` at most.

    The llama-server that was set up, or is on PATH, is asked too: another build may find what this
    one does not.
    """
    from .server.program import find_program

    found = python_devices()
    program = find_program("", _set_up())
    if program is not None:
        found += server_devices(str(program))
    return unique(found)


def python_devices() -> list[Device]:
    """Return what the library of llama-cpp-python finds; nothing if it does not answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE / 2,
        )
        told = json.loads(done.stdout or b"[]")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [_device(*each) for each in told if each[2] in (CPU, GPU, IGPU)]


def server_devices(program: str) -> list[Device]:
    """Return what a llama-server finds beside the CPU; nothing if it does not answer."""
    from .server.program import list_devices

    try:
        found = list_devices(program, timeout=DEADLINE / 2)
    except AIPlaygroundError:
        return []
    return [_device(id_, name, GPU, memory, free) for id_, name, memory, free in found]


def _set_up() -> Path | None:
    """Return the llama-server that was set up in the folder that this user's programs share."""
    from aiplayground.paths import Paths

    from .server.install import installed_program

    try:
        return installed_program(Paths.resolve().service_data(SERVICE))
    except AIPlaygroundError:
        return None  # broken, which the service itself says better


def unique(devices: Iterable[Device]) -> list[Device]:
    """Return the devices without those whose id came before."""
    return list({each.id: each for each in reversed(list(devices))}.values())[::-1]


def kind_of(type_: int, name: str) -> Kind:
    """Return the kind of a device by llama.cpp's type and the name of the chip."""
    if type_ == CPU:
        return "CPU"
    if "Arc" in name.split() or "Arc(TM)" in name:
        return "Arc"
    return "iGPU" if type_ == IGPU else "GPU"


def _device(id_: str, name: str, type_: int, memory: int, free: int | None = None) -> Device:
    kind = kind_of(type_, name)
    return Device(id=id_, name=name.strip(), kind=kind, memory=memory, free=free)
