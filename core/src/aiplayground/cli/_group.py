"""The group of all commands: a table, so that help and completion import none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ._discovery import PluginCommand


class Entry(NamedTuple):
    """A built-in command: where it is, and its line in the help."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "chat": Entry("chat", "command", "Talk to a model, once or in a conversation."),
    "chats": Entry("chats", "command", "List, search, show and export kept conversations."),
    "models": Entry("models", "command", "List the models here, show one, remove one."),
    "presets": Entry("presets", "command", "List the presets: named settings for a kind of work."),
    "services": Entry("services", "command", "List the services (backends) and their state."),
    "setup": Entry("setup", "command", "Install what a service needs."),
    "serve": Entry("serve", "command", "Serve every backend on one local port."),
    "service": Entry("service", "command", "Run `aipg serve` at every login."),
    "start": Entry("control", "start", "Start a service of the running kernel."),
    "stop": Entry("control", "stop", "Stop a service, or the running kernel itself."),
    "restart": Entry("control", "restart", "Stop a service and start it again."),
    "logs": Entry("logs", "logs", "Show what a service logs."),
    "events": Entry("logs", "events", "Show what happens in the running kernel."),
    "devices": Entry(
        "devices", "command", "List what can compute on this computer, and choose a device."
    ),
    "plugins": Entry("plugins", "command", "List the plugins, and turn them off and on."),
    "plugin": Entry("plugin", "command", "Write a plugin of your own."),
    "doctor": Entry("doctor", "command", "Check everything, with a real answer of each engine."),
    "config": Entry("config", "command", "Show and change settings."),
    "completion": Entry("completion", "command", "Print the completion script of a shell."),
}
"""The built-in commands, in the order in which a newcomer needs them."""


class Brought(NamedTuple):
    """A command of ours that a package of its own brings: its line in the help."""

    package: str
    help: str


MEANT = {
    "ask": "chat",
    "download": "pull",
    "get": "pull",
    "install": "setup",
    "list": "models",
    "ls": "models",
    "models delete": "models rm",
    "models download": "pull",
    "models list": "models",
    "models ls": "models",
    "models pull": "pull",
    "models remove": "models rm",
    "models show": "models info",
    "ps": "services",
    "rm": "models rm",
    "run": "chat",
    "search": "models suggest",
    "show": "models info",
    "status": "services",
}
"""What other programs call a command of ours."""

BROUGHT = {
    "pull": Brought("aiplayground-models", "Download a model from the Hugging Face Hub."),
    "downloads": Brought(
        "aiplayground-models", "List downloads, and what is left of earlier ones."
    ),
    "models suggest": Brought("aiplayground-models", "Suggest models that fit this computer."),
    "config hf-token": Brought("aiplayground-models", "Store the token for the Hugging Face Hub."),
}
"""The help names them whether or not the package is there; without it, they say what to install."""


class CommandGroup(click.Group):
    """Built-in commands, then those that plugins bring.

    Plugins are loaded only for a name that is no built-in one: help stays fast and does not list
    their commands; `aipg plugins` does.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the built-in commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name in COMMANDS:
            entry = COMMANDS[cmd_name]
            found: Any = getattr(import_module(f".{entry.module}", __package__), entry.attribute)
            return found if isinstance(found, click.Command) else None
        return brought_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; say which one may have been meant if there is none."""
        name = args[0]
        if (
            not ctx.resilient_parsing
            and not name.startswith("-")
            and self.get_command(ctx, name) is None
        ):
            from aiplayground.errors import suggest

            known = [*COMMANDS, *BROUGHT, *_of_plugins(ctx)]
            ctx.fail(f"There is no command '{name}'.{other_name(name) or suggest(name, known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _listed()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names without importing them."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=entry.help)
            for name, entry in _listed()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


class OpenGroup(click.Group):
    """A built-in command with commands of its own, to which plugins add: `"config hf-token"`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of the group's own, else one that a plugin brings."""
        own = super().get_command(ctx, cmd_name)
        return own or brought_command(ctx, f"{self.name} {cmd_name}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, those of packages of ours included."""
        own = {name: self.commands[name].get_short_help_str(limit=90) for name in self.commands}
        brought = {
            name.removeprefix(f"{self.name} "): entry.help
            for name, entry in BROUGHT.items()
            if name.startswith(f"{self.name} ")
        }
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**brought, **own}.items()))


def other_name(name: str) -> str:
    """Return a hint for what other programs call a command, or an empty string."""
    return f" Use: aipg {MEANT[name]}" if name in MEANT else ""


def brought_command(ctx: click.Context, name: str) -> click.Command | None:
    """Import the command of a plugin, by its whole name; None if no plugin brings it.

    Raises click's `UsageError` for one of ours whose package is not installed.
    """
    if name.startswith("-") or " -" in name:
        return None
    found = _of_plugins(ctx).get(name)
    if found is not None:
        return found.load()
    if name in BROUGHT and not ctx.resilient_parsing:
        ctx.fail(f"'{name}' needs a package more: pip install {BROUGHT[name].package}")
    return None


def _listed() -> list[tuple[str, Entry | Brought]]:
    """Return the top commands of the help, in its order."""
    listed: list[tuple[str, Entry | Brought]] = []
    for name, entry in COMMANDS.items():
        listed.append((name, entry))
        if name == "models":
            listed += [(each, BROUGHT[each]) for each in BROUGHT if " " not in each]
    return listed


def _of_plugins(ctx: click.Context) -> dict[str, PluginCommand]:
    from ._app import App
    from ._discovery import discover, plugin_commands

    if "plugin commands" not in ctx.meta:
        app = ctx.find_object(App) or App()
        ctx.meta["plugin commands"] = plugin_commands(discover(app)).commands
    found: dict[str, PluginCommand] = ctx.meta["plugin commands"]
    return found
