"""The `llama-server` program: where it is, whether it can be run, and what it says of itself.

Everything here blocks, for `CALL_TIMEOUT` seconds a call at most.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aiplayground.errors import FailureClass, ServiceFailed
from aiplayground_llamacpp.backends import NO_DEVICE, unknown_device

from .child import PROGRAM

CALL_TIMEOUT = 20.0
"""Seconds: drivers of graphics cards take long to wake the first time."""

SET_UP = "Set it up: aipg setup llamacpp-backend. Or name one in the setting 'llama_server'."

_VERSION = re.compile(r"version: ?(.+)")
_DEVICE = re.compile(r"^\s+([\w.-]+): (.+?) \((\d+) MiB, (\d+) MiB free\)\s*$")


class Listed(NamedTuple):
    """A device as llama-server names it; sizes in bytes."""

    id: str
    name: str
    memory: int
    free: int


def executable() -> str:
    """Return the program's file name on this system."""
    return f"{PROGRAM}.exe" if os.name == "nt" else PROGRAM


def find_program(setting: str, installed: Path | None) -> Path | None:
    """Return the program to run: the user's own, the one that was set up, the one on PATH."""
    if setting:
        return Path(setting).expanduser()
    if installed is not None:
        return installed
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def check_program(program: str) -> str:
    """Return the version that the program tells. Raises `ServiceFailed` if it cannot be run."""
    done = _call(program, "--version")
    told = done.stdout + done.stderr
    found = _VERSION.search(told)
    if done.returncode != 0 or found is None:
        raise _unusable(program, told, done.returncode)
    return short_version(found[1])


def short_version(told: str) -> str:
    """Return a version as people name it: `b11146` where a build's number is told."""
    number = re.search(r"build (\d+)", told) or re.match(r"(\d+) \(", told)
    return f"b{number[1]}" if number and int(number[1]) > 1 else told.strip()


def list_devices(program: str, *, timeout: float = CALL_TIMEOUT) -> list[Listed]:
    """Return the devices that the program finds."""
    done = _call(program, "--list-devices", timeout=timeout)
    if done.returncode != 0:
        raise _unusable(program, done.stdout + done.stderr, done.returncode)
    return parse_devices(done.stdout)


def parse_devices(text: str) -> list[Listed]:
    """Read what `--list-devices` prints."""
    found = (_DEVICE.match(line) for line in text.splitlines())
    return [
        Listed(each[1], each[2], int(each[3]) * 2**20, int(each[4]) * 2**20)
        for each in found
        if each
    ]


def check_devices(program: str, wanted: Sequence[str]) -> None:
    """Refuse devices that the program does not find: `InvalidSettings` with those that it does."""
    if not wanted or list(wanted) == [NO_DEVICE]:
        return
    known = [each.id for each in list_devices(program)]
    for name in wanted:
        if name not in known:
            raise unknown_device(name, known)


def has_devices(program: str) -> bool:
    """Say whether it computes on anything but the CPU; yes where it does not tell."""
    try:
        return bool(list_devices(program))
    except ServiceFailed:
        return True


def _call(
    program: str, *arguments: str, timeout: float = CALL_TIMEOUT
) -> subprocess.CompletedProcess[str]:
    if not program:
        raise ServiceFailed(
            f"There is no {PROGRAM} on this computer. {SET_UP}", failure=FailureClass.NOT_INSTALLED
        )
    try:
        return subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except OSError as error:
        raise ServiceFailed(
            f"{program} cannot be run: {error.strerror or error}. {SET_UP}",
            failure=FailureClass.MISSING_FILE,
            details={"program": program},
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ServiceFailed(
            f"{program} {' '.join(arguments)} did not end within {timeout:.0f} s. {SET_UP}",
            failure=FailureClass.HUNG,
            details={"program": program},
        ) from error


def _unusable(program: str, told: str, code: int) -> ServiceFailed:
    lines = [line for line in told.strip().splitlines() if line.strip()]
    library = next((line for line in lines if "shared" in line or "not loaded" in line), None)
    said = library or (lines[-1] if lines else "nothing")
    failure = FailureClass.MISSING_LIBRARY if library else FailureClass.EXIT
    return ServiceFailed(
        f"{program} does not work (exit code {code}); it said: {said[:300]}. {SET_UP}",
        failure=failure,
        details={"program": program, "log": lines[-20:]},
    )
