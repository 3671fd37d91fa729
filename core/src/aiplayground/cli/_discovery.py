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
    plain = _plain_limits(app.paths, os.environ)
    if plain is not None:
        return load_plugins(
            allow=plain.get("allow"), deny=plain.get("deny", ()), manifests=app.paths.manifests
        )
    from aiplayground._endpoint import endpoints
    from aiplayground.settings import load_layers

    settings = load_layers(app.paths, os.environ).kernel()
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


def _plain_limits(paths: Paths, environ: Mapping[str, str]) -> dict[str, list[str]] | None:
    """Read `[plugins]` where it is as plain as it is nearly always; None where it is not.

    Validating all settings would take longer than discovery: this is what `aipg plugins` and an
    unknown command wait for.
    """
    if any(name.upper().startswith(("AIPG_PLUGINS__", "AIPG_ATTACH__")) for name in environ):
        return None
    limits: dict[str, list[str]] = {}
    for file in (paths.system_config, paths.config_file):
        table = _plugins_table(file)
        if not all(_is_plain(key, value) for key, value in table.items()):
            return None
        limits |= table
    return limits


def _plugins_table(file: Path) -> dict[str, Any]:
    """Return the table; what stands for a file that is not readable is refused as not plain."""
    import tomllib

    try:
        # Editors on Windows put a byte order mark in front.
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return {"": None}
    table = document.get("plugins", {})
    # Addresses under `attach` are backends, too, so all of the settings are needed.
    return table if isinstance(table, dict) and "attach" not in document else {"": None}


def _is_plain(key: str, value: Any) -> bool:
    listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return key in ("allow", "deny") and listed
