"""Plugins without a kernel: what is installed, and the commands that plugins bring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from aiplayground._loader import PluginSet, load_plugins
from aiplayground.errors import PluginError

if TYPE_CHECKING:
    from pathlib import Path

    from aiplayground.paths import Paths
    from aiplayground.settings import KernelSettings

    from ._app import App


@dataclass(frozen=True, slots=True)
class PluginCommand:
    """A command of a plugin: where it is, imported on use."""

    plugin: str
    target: str

    def load(self) -> click.Command:
        """Import the command. Raises `PluginError` that names the plugin."""
        module, _, name = self.target.partition(":")
        try:
            found: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise PluginError(
                f"{self.plugin} names a command as '{self.target}', which does not import: "
                f"{error}. Update or uninstall that plugin."
            ) from error
        if not isinstance(found, click.Command):
            raise PluginError(
                f"{self.plugin} names a command as '{self.target}', which is no click command."
            )
        return found


@dataclass(slots=True)
class PluginCommands:
    """The commands of all plugins by name, and what went wrong when they were asked."""

    commands: dict[str, PluginCommand] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def discover(app: App) -> PluginSet:
    """Load the installed plugins as a kernel would. Raises `InvalidSettings`."""
    settings = _settings(app.paths, os.environ)
    if settings is None:
        return load_plugins(manifests=app.paths.manifests)
    from aiplayground._endpoint import endpoints

    limits = settings.plugins
    return load_plugins(
        allow=limits.allow,
        deny=limits.deny,
        endpoints=endpoints(settings.attach),
        manifests=app.paths.manifests,
    )


def plugin_commands(plugins: PluginSet) -> PluginCommands:
    """Ask every plugin for its commands; one that fails does not hide those of the others."""
    found = PluginCommands()
    for plugin in plugins.loaded:
        if "register_commands" not in plugin.hooks:
            continue
        try:
            commands = dict(plugin.plugin.register_commands())
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it is reported
            found.problems[plugin.name] = f"{type(error).__name__}: {error}"
            continue
        for name, target in commands.items():
            found.commands.setdefault(str(name), PluginCommand(plugin.name, str(target)))
    return found


def model_files(plugins: PluginSet) -> list[Path]:
    """Return the model files that ship with plugins, as far as those can say."""
    found: list[Path] = []
    for plugin in plugins.loaded:
        if "model_files" in plugin.hooks:
            # Only for completion, where nothing can be reported: `aipg doctor` does that.
            with suppress(Exception):
                found += plugin.plugin.model_files()
    return found


def _settings(paths: Paths, environ: Mapping[str, str]) -> KernelSettings | None:
    files = (paths.config_file, paths.system_config)
    if not any(file.exists() for file in files) and not any(
        name.upper().startswith("AIPG_") and "__" in name for name in environ
    ):
        # Nothing is set, so the defaults hold: validating them would take longer than discovery.
        return None
    from aiplayground.settings import load_layers

    return load_layers(paths, environ).kernel()
