"""How a worker is started, by the choice of engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aiplayground.specs import LaunchSpec
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
        return launch_spec(settings, model, name=name)
    from .install import installed_program
    from .program import find_program

    installed = await ctx.run_sync(installed_program, ctx.data_dir)
    program = await ctx.run_sync(find_program, settings.llama_server, installed)
    return server_spec(settings, program, model, name=name)


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
