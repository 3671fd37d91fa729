"""Which device the user chose: kept in the state folder, by an id that outlives restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aiplayground._threads import in_thread
from aiplayground.errors import AIPlaygroundError, ServiceNotAvailable
from aiplayground.paths import file_error
from aiplayground.specs import Device
from aiplayground.states import Runtime

from ._merge import ComputeDevice, find_device, merge
from ._sysfs import system_devices

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

SYSTEM_DEADLINE = 5.0
"""Seconds for reading the system's own lists; a driver may hang on them."""

AUTO = "auto"
"""The name that takes a selection back."""


class DeviceDesk:
    """Detects and selects devices for one kernel."""

    def __init__(self, kernel: Kernel, root: Path = Path("/")) -> None:
        self._kernel = kernel
        self._root = root
        self._file = kernel.paths.state / "device.json"
        self._asking: asyncio.Task[list[ComputeDevice]] | None = None
        self._turn = asyncio.Lock()
        self.selected: ComputeDevice | None = None

    def load(self) -> None:
        """Read which device was chosen; a damaged note counts as none. Blocks."""
        self.selected = _read(self._file)

    def selected_for(self, plugin: str) -> tuple[Device, ...]:
        """Return the chosen device by the names that a plugin gave it."""
        return self.selected.known_as.get(plugin, ()) if self.selected else ()

    async def detect(self) -> list[ComputeDevice]:
        """List the devices; callers at the same time share one look."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._detect(), name="device detection")
        return await asyncio.shield(self._asking)

    async def _detect(self) -> list[ComputeDevice]:
        try:
            system = await in_thread(SYSTEM_DEADLINE, system_devices, self._root)
        except (TimeoutError, OSError) as error:
            self._kernel.log().logger.warning("The system's devices could not be listed: %r", error)
            system = [Device(id="cpu", name="CPU", kind="CPU")]
        return merge(system, await self._kernel.reported_devices())

    async def select(self, wanted: str) -> ComputeDevice | None:
        """Choose a device by id or unambiguous name; `auto` takes the choice back.

        Running services that can use it restart onto it. Raises `InvalidParameters`, and
        `ServiceNotAvailable` if the choice is kept but a service did not come up again.
        """
        async with self._turn:
            chosen = None
            if wanted.strip().casefold() != AUTO:
                chosen = find_device(await self.detect(), wanted)
            before = self.selected
            await asyncio.to_thread(_write, self._file, chosen)
            self.selected = chosen
            if chosen != before:
                await self._restart({*_users(before), *_users(chosen)})
            return chosen

    async def _restart(self, plugins: set[str]) -> None:
        services = [
            spec.name
            for plugin in self._kernel.plugins.loaded
            if plugin.name in plugins
            for spec in plugin.backends
            if self._kernel.service(spec.name).runtime in (Runtime.RUNNING, Runtime.STARTING)
        ]
        done = await asyncio.gather(
            *(self._kernel.restart(name) for name in services), return_exceptions=True
        )
        failed = [
            f"{name}: {result}"
            for name, result in zip(services, done, strict=True)
            if isinstance(result, AIPlaygroundError)
        ]
        if failed:
            raise ServiceNotAvailable(
                f"The device is selected, but not every service came up on it. {' '.join(failed)}",
                details={"services": services},
            )

    async def close(self) -> None:
        """End a look in progress."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})


def _users(chosen: ComputeDevice | None) -> Mapping[str, tuple[Device, ...]]:
    return chosen.known_as if chosen else {}


def _read(path: Path) -> ComputeDevice | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        known = {name: tuple(Device(**each) for each in own) for name, own in told["known"].items()}
        return ComputeDevice(device=Device(**told["device"]), known_as=known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # damaged: as if nothing had been chosen, and the next choice writes it anew


def _write(path: Path, chosen: ComputeDevice | None) -> None:
    try:
        if chosen is None:
            path.unlink(missing_ok=True)
            return
        known = {name: [asdict(each) for each in own] for name, own in chosen.known_as.items()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"device": asdict(chosen.device), "known": known}), "utf-8")
        part.replace(path)
    except OSError as error:
        raise file_error("write", path, error) from error
