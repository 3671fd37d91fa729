"""How a worker is started, by the choice of engine."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiplayground.specs import Device, LaunchSpec
from aiplayground_llamacpp.launch import PRIMARY, launch_spec

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext
    from aiplayground.models import LocalModel
    from aiplayground_llamacpp.settings import Settings

MODULE = "aiplayground_llamacpp.server.worker"


async def worker_spec(ctx: ServiceContext, model: LocalModel | None, *, name: str) -> LaunchSpec:
    """Return the spec of a worker; with a model it loads that at each start."""
    settings: Settings = ctx.settings
    if settings.engine == "python":
        settings = await _on_selected(ctx, settings, None)
        return launch_spec(settings, model, name=name)
    from .install import installed_program
    from .program import find_program

    installed = await ctx.run_sync(installed_program, ctx.data_dir)
    program = await ctx.run_sync(find_program, settings.llama_server, installed)
    settings = await _on_selected(ctx, settings, program)
    return server_spec(settings, program, model, name=name)


async def _on_selected(ctx: ServiceContext, settings: Settings, program: Path | None) -> Settings:
    """Return the settings with the device that the user selected, where they name none."""
    selected = ctx.selected_devices
    if settings.devices or not selected:
        return settings
    found: list[Device] = []
    if any(each.kind != "CPU" for each in selected):
        from aiplayground_llamacpp.devices import python_devices, server_devices

        ask = partial(server_devices, str(program)) if program else python_devices
        found = await ctx.run_sync(ask)
    names = device_names(selected, {each.id for each in found})
    if not names:
        ctx.logger.warning(
            "The selected device (%s) is none that this engine finds: it takes what it has.",
            selected[0].name,
        )
    return settings.model_copy(update={"devices": names})


def device_names(selected: Sequence[Device], known: Collection[str]) -> tuple[str, ...]:
    """Return what the setting `devices` says for a selection; empty if the engine has none of it.

    `selected` are names of one device; the builds of llama.cpp know different ones.
    """
    if all(each.kind == "CPU" for each in selected):
        return ("none",)
    return tuple([each.id for each in selected if each.id in known][:1])


def server_spec(
    settings: Settings, program: Path | None, model: LocalModel | None, *, name: str
) -> LaunchSpec:
    """Return the spec of a worker that runs `program`: pure.

    It is launched as a foreign program, under the kernel's guard: however the worker ends, the
    guard then ends its llama-server.
    """
    argv = [sys.executable, "-m", MODULE, "--fd", "{fd}"]
    if model is not None:
        argv += ["--model", str(model.path), "--name", model.name]
    told = settings.model_copy(update={"llama_server": str(program or "")})
    argv += ["--settings", told.model_dump_json(exclude_defaults=True)]
    return LaunchSpec(
        argv=argv,
        name=name,
        primary=name == PRIMARY,
        model=model.name if model else None,
        start_timeout=settings.load_timeout if model else None,
    )
