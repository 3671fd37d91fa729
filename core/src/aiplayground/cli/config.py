"""`aipg config`: show and change settings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from ._app import App, json_option
from ._group import OpenGroup
from ._output import print_json, print_table, say, warn
from ._secret import check_api_key, keep_secret, new_api_key, secret_options
from .completion import complete_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from ._settings_view import SettingsView

HIDDEN = "**********"
"""What is shown of a secret, whatever its length."""


@click.group("config", cls=OpenGroup)
def command() -> None:
    """Show and change settings.

    \b
    aipg config list
    aipg config set models.default guide
    aipg config unset models.default

    Settings come from, lowest first: defaults, the machine's file, your file (`aipg config path`),
    environment variables such as AIPG_RESIDENCY__IDLE_TIMEOUT.
    """


@command.command("list")
@json_option
@click.option("--changed", is_flag=True, help="Only settings that differ from their default.")
@click.pass_obj
def list_settings(app: App, changed: bool) -> None:
    """List every setting with its value and where that comes from."""
    from ._settings_view import as_text

    view = _view(app)
    rows = [row for row in view.rows() if not changed or row.value != row.default]
    if app.json:
        print_json([dataclasses.asdict(row) for row in rows])
    elif rows:
        print_table(
            ["setting", "value", "from", "meaning"],
            [[row.key, as_text(row.value), row.origin, row.description] for row in rows],
        )
    else:
        say("Every setting has its default value.")


@command.command("get")
@json_option
@click.argument("key", shell_complete=complete_setting)
@click.pass_obj
def get_setting(app: App, key: str) -> None:
    """Print the value of one setting."""
    from ._settings_view import as_text

    row = _view(app).row(key)
    if app.json:
        print_json(dataclasses.asdict(row))
    else:
        say(as_text(row.value))


@command.command("set", context_settings={"ignore_unknown_options": True})
@json_option
@click.argument("key", shell_complete=complete_setting)
@click.argument("value")
@click.pass_obj
def set_setting(app: App, key: str, value: str) -> None:
    """Change one setting in your settings file.

    VALUE is text, a number, true or false; for a list, separate with commas.
    """
    from aiplayground.errors import InvalidSettings
    from aiplayground.settings import set_value

    from ._settings_view import as_text

    try:
        services = _view(app).services
    except InvalidSettings:
        # What is wrong may be just what is being mended; `set_value` checks the rest of it.
        services = None
    written = set_value(app.paths, key, value, services=services)
    if _is_secret(key, services or {}):
        written = HIDDEN
    if app.json:
        print_json({"key": key, "value": written, "path": str(app.paths.config_file)})
        return
    say(f"{key} = {as_text(written)}  ({app.paths.config_file})")
    _warn_if_hidden(app, key)


@command.command("unset")
@click.argument("key", shell_complete=complete_setting)
@click.pass_obj
def unset_setting(app: App, key: str) -> None:
    """Take one setting out of your settings file, so that its default holds again."""
    from aiplayground.settings import unset_value

    unset_value(app.paths, key)
    say(f"{key} is not set any more  ({app.paths.config_file})")


@command.command("api-key")
@secret_options
@click.pass_obj
def api_key(app: App, /, **chosen: bool) -> None:
    """Set the key that the gateway asks for beyond this computer.

    It is asked for without showing it, or read from stdin; an empty line makes a new one. It is
    kept in the system's keyring, else in a file of yours alone, and holds from the gateway's next
    start. Without one, the gateway makes one when it needs it.
    """
    from aiplayground.secrets import API_KEY

    keep_secret(app, API_KEY, "API key", check=check_api_key, make=new_api_key, **chosen)


@command.command("path")
@click.pass_obj
def show_path(app: App) -> None:
    """Print where your settings file lies, whether or not there is one yet."""
    say(str(app.paths.config_file))


def _view(app: App) -> SettingsView:
    from ._settings_view import SettingsView

    view = SettingsView.read(app)
    for problem in view.problems:
        warn(problem)
    return view


def _is_secret(key: str, services: Mapping[str, type[BaseModel]]) -> bool:
    from aiplayground.settings import KernelSettings, is_secret, split_key

    path = split_key(key)
    own = services.get(path[1]) if len(path) > 2 and path[0] == "services" else None
    return is_secret(KernelSettings, path) or (own is not None and is_secret(own, path[2:]))


def _warn_if_hidden(app: App, key: str) -> None:
    """Say so when something above the user's file decides, such as an environment variable."""
    from aiplayground.settings import load_layers

    origin = load_layers(app.paths).origin(key)
    if not origin.startswith(str(app.paths.config_file)):
        warn(f"{origin} sets it too, and that is what counts.")
