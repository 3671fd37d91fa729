"""`aipg plugins`: what is installed, what is wrong with it, and turning it off and on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json, print_table, say, warn
from .completion import complete_plugin

if TYPE_CHECKING:
    from aiplayground._loader import LoadedPlugin, PluginSet

    from ._discovery import PluginCommands


@click.group("plugins", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the plugins, and turn them off and on.

    One that fails is left out, and the rest works. The settings `plugins.allow` and `plugins.deny`
    say which ones may load; `disable` and `enable` write them.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ._discovery import discover, plugin_commands

    app = ctx.ensure_object(App)
    plugins = discover(app)
    commands = plugin_commands(plugins)
    if app.json:
        print_json(as_json(plugins, commands))
    else:
        _print(plugins, commands)


@command.command("disable")
@json_option
@click.argument("name", shell_complete=complete_plugin)
@click.pass_obj
def disable(app: App, name: str) -> None:
    """Keep a plugin from loading; it stays installed.

    The name is that of `aipg plugins`. It is written to `plugins.deny` in your settings file.
    """
    from ._switch import disable as write

    _report(app, name, write(app, name), enabled=False)


@command.command("enable")
@json_option
@click.argument("name", shell_complete=complete_plugin)
@click.pass_obj
def enable(app: App, name: str) -> None:
    """Let a plugin load again."""
    from ._switch import enable as write

    _report(app, name, write(app, name), enabled=True)


def _report(app: App, name: str, outcome: Any, *, enabled: bool) -> None:
    if app.json:
        print_json({"plugin": name, "enabled": enabled, **outcome.as_json()})
        return
    say(outcome.text)
    for warning in outcome.warnings:
        warn(warning)


def as_json(plugins: PluginSet, commands: PluginCommands) -> dict[str, Any]:
    """Return what `aipg plugins --json` prints; `loadMilliseconds` is what loading took."""
    from aiplayground.hookspecs import HOOK_API

    return {
        "hookApi": HOOK_API,
        "plugins": [
            {
                "name": each.name,
                "distribution": each.distribution,
                "version": each.version,
                "hookApi": list(each.hook_api),
                "source": each.source,
                "services": _services(each),
                "hooks": list(each.hooks),
                "commands": _commands(each, commands),
                "notes": list(each.notes),
                "loadMilliseconds": round(each.seconds * 1000, 2),
            }
            for each in plugins.loaded
        ],
        "failures": [
            {
                "name": each.name,
                "distribution": each.distribution,
                "version": each.version,
                "hookApi": list(each.hook_api),
                "stage": each.stage,
                "message": each.message,
                "cause": type(each.error).__name__ if each.error is not None else None,
            }
            for each in plugins.failures
        ],
        "disabled": list(plugins.disabled),
        "problems": commands.problems,
    }


def _print(plugins: PluginSet, commands: PluginCommands) -> None:
    if plugins.loaded:
        print_table(
            ["plugin", "package", "version", "api", "services", "commands", "hooks", "load"],
            [_row(each, commands) for each in plugins.loaded],
        )
    elif not plugins.failures and not plugins.disabled:
        say("No plugins are installed. A backend is one: pip install aiplayground-llamacpp")
    for plugin in plugins.loaded:
        for text in plugin.notes:
            say(f"Note: {plugin.name}: {text}", fg="yellow")
    for failure in plugins.failures:
        say(f"Failed: {failure.message}", fg="red")
    for name, problem in commands.problems.items():
        say(f"Failed: {name}: its hook 'register_commands' raised {problem}", fg="red")
    if plugins.disabled:
        say(f"Not loaded, as the settings say: {', '.join(plugins.disabled)}")


def _row(plugin: LoadedPlugin, commands: PluginCommands) -> list[str]:
    return [
        plugin.name,
        plugin.distribution or plugin.source,
        plugin.version,
        ", ".join(map(str, plugin.hook_api)),
        ", ".join(_services(plugin)),
        ", ".join(_commands(plugin, commands)),
        ", ".join(plugin.hooks),
        f"{plugin.seconds * 1000:.1f} ms",
    ]


def _services(plugin: LoadedPlugin) -> list[str]:
    return [spec.name for spec in plugin.backends]


def _commands(plugin: LoadedPlugin, commands: PluginCommands) -> list[str]:
    return [name for name, each in commands.commands.items() if each.plugin == plugin.name]
