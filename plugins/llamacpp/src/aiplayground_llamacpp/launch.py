"""How a worker of this backend is started: pure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aiplayground.specs import LaunchSpec

if TYPE_CHECKING:
    from aiplayground.models import LocalModel

    from .settings import Settings

PRIMARY = "main"
MODULE = "aiplayground_llamacpp.worker"


def launch_spec(settings: Settings, model: LocalModel | None, *, name: str) -> LaunchSpec:
    """Return the spec of a worker; with a model it loads that at each start."""
    argv = [sys.executable, "-m", MODULE, "--fd", "{fd}"]
    if model is not None:
        argv += ["--model", str(model.path), "--name", model.name]
    options = settings.model_dump_json(exclude_defaults=True)
    if options != "{}":
        argv += ["--settings", options]
    return LaunchSpec(
        argv=argv,
        name=name,
        primary=name == PRIMARY,
        model=model.name if model else None,
        # Else a native abort would start a debugger and flood the log.
        env={"GGML_NO_BACKTRACE": "1"},
        ours=True,
        start_timeout=settings.load_timeout if model else None,
    )


def worker_name(model: str) -> str:
    """Return the name of the worker that a model has to itself."""
    return f"model:{model}"
