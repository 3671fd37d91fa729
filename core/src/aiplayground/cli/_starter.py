"""The offer of a first model, where `aipg chat` finds none but those that ship with a package."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._output import is_terminal, say
from ._run import run_with_any

if TYPE_CHECKING:
    from ._app import App

PACKAGE = "aiplayground_models"
DECLINED = "starter-declined"
"""The file in the state folder that says that nobody wants to be asked again."""

MOST = 3 * 10**9
"""Bytes of a first download at most: larger models are for those who look for them."""

HINT = "Only the tiny guide is here. `aipg models suggest` shows models that fit this computer."


def offer(app: App) -> None:
    """Say what could be downloaded if there is no model yet; on a terminal ask once.

    Does nothing where there are models, in pipes, or once it was declined.
    """
    if (
        not (is_terminal() and is_terminal(sys.stdin))
        or _declined(app).exists()
        or _has_models(app)
    ):
        return
    say(HINT, dim=True)
    if find_spec(PACKAGE) is None or (best := _best(app)) is None:
        return
    size = f"{best.size / 1e9:.1f} GB"
    if click.confirm(f"Download {best.about} (about {size}, {best.licence})?", default=False):
        command = [sys.executable, "-m", "aiplayground.cli"]
        home = ["--home", str(app.home)] if app.home else []
        # No deadline: it is as long as the download, and Ctrl-C ends it.
        subprocess.run([*command, *home, "pull", best.repo, *best.files], check=False)
        return
    _declined(app).parent.mkdir(parents=True, exist_ok=True)
    _declined(app).touch()


def _declined(app: App) -> Path:
    return app.paths.state / DECLINED


def _has_models(app: App) -> bool:
    from .models import model_paths

    roots = [root for root in model_paths(app).roots() if root.is_dir()]
    if any(True for root in roots for _ in root.rglob("*.gguf")):
        return True
    # A model without a file here is another backend's, or an attached server's; what is left lies
    # in a package.
    return any(not each.path for each in run_with_any(app, lambda kernel: kernel.models()))


def _best(app: App) -> Any:
    """Return the most capable model that is no large download and leaves half of the memory."""
    from dataclasses import replace

    from aiplayground_models.commands.suggest import memory_here, suggestions

    half = [replace(each, free=each.free // 2) for each in memory_here(app)]
    found = (each.starter for each in suggestions(app, half, "chat") if each.fits)
    return next((each for each in found if each.size <= MOST), None)
