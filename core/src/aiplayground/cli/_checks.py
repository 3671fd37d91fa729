"""The checks of `aipg doctor` that need no kernel: machine, folders, settings, plugins."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground import __version__
from aiplayground.errors import AIPlaygroundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiplayground._loader import PluginSet
    from aiplayground.paths import Paths

    from ._app import App

LOW_DISK = 2 * 10**9
"""Bytes free under which a model hardly fits any more."""
LOW_MEMORY = 10**9
"""Bytes of memory available under which even small models may not load."""


class Verdict(StrEnum):
    """How a check ended; only a failure makes `aipg doctor` exit with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: what holds or is wrong, and how to mend it."""

    check: str
    verdict: Verdict
    message: str
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as `aipg doctor --json` lists it."""
        return {
            "check": self.check,
            "status": self.verdict.value,
            "message": self.message,
            "advice": self.advice,
            "details": self.details,
        }


def failed(check: str, error: AIPlaygroundError) -> Finding:
    """Return an error as a finding; its message has the advice in it."""
    return Finding(check, Verdict.FAIL, error.message, details=error.details)


def check_machine() -> Iterator[Finding]:
    """Say what this runs on, and whether memory is short."""
    import psutil

    from ._output import size_text

    system = f"{platform.system()} {platform.release()} ({platform.machine()})"
    python = f"Python {platform.python_version()}"
    yield Finding(
        "program",
        Verdict.OK,
        f"aipg {__version__}, {python}, {system}",
        details={"python": sys.executable, "version": __version__},
    )
    memory = psutil.virtual_memory()
    free = f"{size_text(memory.available)} of {size_text(memory.total)} available"
    low = memory.available < LOW_MEMORY
    yield Finding(
        "memory",
        Verdict.WARN if low else Verdict.OK,
        free,
        "Close other programs, or use small models." if low else "",
        {"available": memory.available, "total": memory.total},
    )


def check_folders(paths: Paths) -> Iterator[Finding]:
    """Say whether the home can be written, how full its disk is, and where the logs are."""
    from ._output import size_text

    try:
        paths.ensure()
    except AIPlaygroundError as error:
        yield failed("folders", error)
        return
    root = _model_root(paths)
    folders = (paths.config, paths.data, paths.cache, paths.state, paths.logs, paths.models)
    closed = [folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)]
    for folder in closed:
        advice = "Change its owner or permissions, or choose another home with AIPG_HOME."
        yield Finding("folders", Verdict.FAIL, f"{folder} cannot be written.", advice)
    if not closed:
        yield Finding("folders", Verdict.OK, f"models go to {root}")
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    low = free < LOW_DISK
    yield Finding(
        "disk",
        Verdict.WARN if low else Verdict.OK,
        f"{size_text(free)} free for models",
        "Free some space, or name a folder elsewhere in the setting 'models.root'." if low else "",
        {"free": free},
    )
    yield Finding("logs", Verdict.OK, f"{paths.logs}", details={"path": str(paths.logs)})


def _model_root(paths: Paths) -> Path:
    from aiplayground.settings import load_layers

    try:
        return load_layers(paths).kernel().models.root or paths.models
    except AIPlaygroundError:
        return paths.models  # what is wrong with the settings is a finding of its own


def check_settings(app: App) -> Iterator[Finding]:
    """Say what is wrong with the settings; with an error, no kernel can come up."""
    from aiplayground.settings import unknown_services

    from ._settings_view import SettingsView

    try:
        view = SettingsView.read(app)
        view.rows()
    except AIPlaygroundError as error:
        yield failed("settings", error)
        return
    file = app.paths.config_file
    unknown = unknown_services(view.layers, list(view.services))
    advice = "Install the backend that it is for, or take it out: aipg config unset services.NAME"
    for problem in unknown:
        yield Finding("settings", Verdict.WARN, problem, advice)
    for problem in view.problems:
        yield Finding("settings", Verdict.FAIL, problem, "Update or uninstall that plugin.")
    if not unknown and not view.problems:
        origin = str(file) if Path(file).exists() else f"the defaults; there is no {file}"
        yield Finding("settings", Verdict.OK, origin, details={"path": str(file)})


def check_plugins(plugins: PluginSet) -> Iterator[Finding]:
    """Say which plugins are there and which failed."""
    from ._discovery import plugin_commands

    for failure in plugins.failures:
        details = {"plugin": failure.name, "stage": failure.stage}
        yield Finding("plugins", Verdict.FAIL, failure.message, details=details)
    for name, problem in plugin_commands(plugins).problems.items():
        message = f"{name}: its hook 'register_commands' raised {problem}."
        yield Finding("plugins", Verdict.FAIL, message, "Update or uninstall that plugin.")
    for plugin in plugins.loaded:
        for text in plugin.notes:
            note = f"{plugin.name}: {text}"
            yield Finding("plugins", Verdict.WARN, note, "Update that plugin, or tell its author.")
    if plugins.loaded:
        yield Finding("plugins", Verdict.OK, ", ".join(each.name for each in plugins.loaded))
    if not any(plugin.backends for plugin in plugins.loaded):
        message = "no backend is installed, so no model can run"
        yield Finding("plugins", Verdict.FAIL, message, "Try: pip install aiplayground-llamacpp.")
