"""`aipg plugins`: what is installed, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json, print_table, say

if TYPE_CHECKING:
    from aiplayground._loader import LoadedPlugin, PluginSet

    from ._discovery import PluginCommands


@click.command("plugins")
@json_option
@click.pass_obj
def command(app: App) -> None:
    """List the plugins, and what is wrong with any.

    A plugin that fails is left out and the rest works. The settings `plugins.allow` and
    `plugins.deny` say which ones may load.
    """
    from ._discovery import discover, plugin_commands

    plugins = discover(app)
    commands = plugin_commands(plugins)
    if app.json:
        print_json(as_json(plugins, commands))
    else:
        _print(plugins, commands)


def as_json(plugins: PluginSet, commands: PluginCommands) -> dict[str, Any]:
    """Return what `aipg plugins --json` prints; `loadMilliseconds` is what loading took."""
    return {
        "plugins": [
            {
                "name": each.name,
                "distribution": each.distribution,
                "version": each.version,
                "source": each.source,
                "services": _services(each),
                "hooks": list(each.hooks),
                "commands": _commands(each, commands),
                "loadMilliseconds": round(each.seconds * 1000, 2),
            }
            for each in plugins.loaded
        ],
        "failures": [
            {
                "name": each.name,
                "distribution": each.distribution,
                "version": each.version,
                "stage": each.stage,
                "message": each.message,
            }
            for each in plugins.failures
        ],
        "disabled": list(plugins.disabled),
        "problems": commands.problems,
    }


def _print(plugins: PluginSet, commands: PluginCommands) -> None:
    if plugins.loaded:
        print_table(
            ["plugin", "package", "version", "services", "commands", "hooks", "load"],
            [
                [
                    each.name,
                    each.distribution or each.source,
                    each.version,
                    ", ".join(_services(each)),
                    ", ".join(_commands(each, commands)),
                    ", ".join(each.hooks),
                    f"{each.seconds * 1000:.1f} ms",
                ]
                for each in plugins.loaded
            ],
        )
    elif not plugins.failures and not plugins.disabled:
        say("No plugins are installed. A backend is one: pip install aiplayground-llamacpp")
    for failure in plugins.failures:
        say(f"Failed: {failure.message}", fg="red")
    for name, problem in commands.problems.items():
        say(f"Failed: {name}: its hook 'register_commands' raised {problem}", fg="red")
    if plugins.disabled:
        say(f"Not loaded, as the settings say: {', '.join(plugins.disabled)}")


def _services(plugin: LoadedPlugin) -> list[str]:
    return [spec.name for spec in plugin.backends]


def _commands(plugin: LoadedPlugin, commands: PluginCommands) -> list[str]:
    return [name for name, each in commands.commands.items() if each.plugin == plugin.name]
