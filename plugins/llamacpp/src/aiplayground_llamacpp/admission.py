"""What the kernel asks before a load: the files and devices behind `estimate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from aiplayground.errors import AIPlaygroundError
from aiplayground.gguf import read_gguf
from aiplayground.specs import Device, MemoryEstimate

from .backends import NO_DEVICE
from .bindings import PACKAGE
from .estimate import Files, estimate
from .options import model_options, option_path, options_for

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext
    from aiplayground.models import LocalModel

    from .settings import Settings

OWN_MEMORY = frozenset({"Arc", "GPU"})
"""Kinds of devices that do not share the main memory."""

_FOR_THE_CPU = ("ggml-base", "ggml-cpu", "ggml-blas", "ggml.")


async def estimate_model(ctx: ServiceContext, name: str) -> MemoryEstimate | None:
    """Estimate a model of this name with the settings that hold for it."""
    settings = options_for(ctx.settings, name)
    model = await ctx.find_model(name)
    files = await ctx.run_sync(read_files, settings, model)
    device = await _device(ctx, settings)
    return estimate(files, settings, device)


async def release(ctx: ServiceContext, name: str, wanted: int) -> int:
    """Have the worker of a model give up what it keeps for later; with 0, ask how much that is.

    What llama-server keeps, nobody can take from it while it runs.
    """
    if ctx.settings.engine != "python":
        return 0
    from . import residency

    return await (residency.release(ctx, name) if wanted else residency.releasable(ctx, name))


def read_files(settings: Settings, model: LocalModel) -> Files:
    """Read the headers of a model's files and look how large what goes with it is. Blocks."""
    special = model_options(settings, model.name)
    projector = model.projector
    if special.projector is not None:
        projector = option_path(special.projector, model.path) if special.projector else None
    adapters = [option_path(each.path, model.path) for each in special.adapters]
    draft = option_path(special.draft, model.path) if special.draft else None
    return Files(
        parts=tuple(read_gguf(path) for path in model.files),
        adapters=sum(map(_size, adapters)),
        projector=_size(projector),
        draft=read_gguf(draft) if draft is not None and draft.is_file() else None,
    )


async def _device(ctx: ServiceContext, settings: Settings) -> Device | None:
    """Return the device with memory of its own that takes the layers; None for main memory."""
    selected = ctx.selected_devices
    if settings.gpu_layers == 0 or settings.devices == (NO_DEVICE,):
        return None
    if not settings.devices and selected and all(each.kind == "CPU" for each in selected):
        return None
    try:
        found = await ctx.run_sync(_devices, settings, ctx.data_dir)
    except AIPlaygroundError as error:
        ctx.logger.warning("Its devices cannot be listed: %s", error.message)
        return None
    names = settings.devices or tuple(each.id for each in selected)
    known = [each for each in found if each.kind in OWN_MEMORY]
    return together([each for each in known if each.id in names] or known)


def together(devices: Sequence[Device]) -> Device | None:
    """Return several devices as one: layers are divided between them as there is room."""
    if len(devices) < 2:
        return devices[0] if devices else None
    frees = [each.free for each in devices]
    return Device(
        id="+".join(each.id for each in devices),
        name=", ".join(each.name for each in devices),
        kind=devices[0].kind,
        memory=sum(each.memory for each in devices),
        free=None if None in frees else sum(free or 0 for free in frees),
    )


def _devices(settings: Settings, data: Path) -> list[Device]:
    from .devices import python_devices, server_devices

    if settings.engine == "python":
        return python_devices() if may_offload() else []
    from .server.install import installed_program
    from .server.program import find_program

    program = find_program(settings.llama_server, installed_program(data))
    return server_devices(str(program)) if program is not None else []


def may_offload(package: str = PACKAGE) -> bool:
    """Say whether the library has parts for anything but the CPU; yes where that is not seen.

    Asking itself takes a process and some tenths of a second, before each load.
    """
    if sys.platform == "darwin":
        return False  # Metal's memory is the main memory
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(each) / "lib" for each in places or []]
    names = [path.name.removeprefix("lib") for each in folders for path in _listed(each)]
    parts = [name for name in names if name.startswith("ggml")]
    return not parts or not all(name.startswith(_FOR_THE_CPU) for name in parts)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path is not None else 0
    except OSError:
        return 0  # the load says better what is wrong with it
