"""Which build of llama.cpp's release fits this computer: the pinned one, with its checksums."""

from __future__ import annotations

import ctypes.util
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from aiplayground.errors import InvalidSettings

DATA = "release.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file of a release. `size` is in bytes, 0 where it is not pinned.

    Without a `sha256` here, the one counts that the release itself tells.
    """

    name: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release: its tag, where its files lie, and which files make up a build."""

    tag: str
    download: str
    metadata: str
    builds: Mapping[str, tuple[Asset, ...]]

    def url(self, asset: Asset, mirror: str = "") -> str:
        """Return where a file is; `mirror` takes the place of GitHub's folder of releases."""
        return f"{(mirror or self.download).rstrip('/')}/{self.tag}/{asset.name}"

    @property
    def metadata_url(self) -> str:
        """Where the release tells the checksums of its files."""
        return f"{self.metadata}/{self.tag}"


@cache
def pinned() -> Release:
    """Return the release that this version of the plugin was tested with."""
    told = json.loads(files(__package__).joinpath(DATA).read_text("utf-8"))
    builds = {key: tuple(Asset(**each) for each in found) for key, found in told["builds"].items()}
    return Release(
        tag=told["tag"], download=told["download"], metadata=told["metadata"], builds=builds
    )


def system() -> str:
    """Return system and processor as the keys of builds begin, such as `linux-x64`."""
    names = {"linux": "linux", "darwin": "macos", "win32": "windows"}
    machine = platform.machine().lower()
    processor = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(machine, machine)
    return f"{names.get(sys.platform, sys.platform)}-{processor}"


def candidates(
    variant: str, where: str, release: Release, shows: Callable[[str], bool]
) -> list[str]:
    """Return the builds to try, best first. Raises `InvalidSettings` if there is none.

    `auto` takes what the machine `shows` signs of, and the CPU's if that does not work.
    """
    offered = [key.removeprefix(f"{where}-") for key in release.builds if key.startswith(where)]
    if not offered:
        raise InvalidSettings(
            f"llama.cpp offers no ready-made llama-server for {where}. Compile one and name it in "
            "the setting 'llama_server'."
        )
    if variant != "auto" and variant not in offered:
        raise InvalidSettings(
            f"llama.cpp's release {release.tag} has no build '{variant}' for {where}. There are: "
            f"{', '.join(offered)}; set 'llama_server_build' to one of them, or to auto."
        )
    if variant != "auto":
        return [f"{where}-{variant}"]
    likely = [each for each in ("metal", "cuda", "vulkan") if each in offered and shows(each)]
    rest = [each for each in ("cpu",) if each in offered]
    return [f"{where}-{each}" for each in likely[:1] + rest]


def machine_shows(variant: str) -> bool:
    """Say whether this computer shows signs of what a build needs; blocks for a moment."""
    if variant == "metal":
        return True  # there is no other build for such a computer
    if variant == "cuda":
        return any(Path(each).exists() for each in _nvidia())
    if variant == "vulkan":
        cards = sys.platform == "win32" or any(Path("/dev/dri").glob("renderD*"))
        return cards and ctypes.util.find_library(_VULKAN) is not None
    return False


_VULKAN = "vulkan-1" if sys.platform == "win32" else "vulkan"


def _nvidia() -> tuple[str, ...]:
    if sys.platform == "win32":
        root = os.environ.get("SYSTEMROOT", r"C:\Windows")
        return (rf"{root}\System32\nvcuda.dll",)
    return ("/proc/driver/nvidia/version", "/dev/nvidiactl")
