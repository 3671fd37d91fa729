"""Commands that keep a secret: asked for without an echo, never an argument that a list shows."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._output import print_json, say, warn

if TYPE_CHECKING:
    from aiplayground.secrets import Secrets

    from ._app import App

Function = TypeVar("Function", bound=Callable[..., Any])

KEY_BYTES = 32

LEAST_KEY = 16
"""Characters of an API key at least: it is what keeps strangers on the network out."""


def secret_options(function: Function) -> Function:
    """Give a command the options that `keep_secret` takes: `--clear`, `--show`, `--where`."""
    from ._app import json_option

    for name, text in (
        ("--where", "Say where it is kept."),
        ("--show", "Print it."),
        ("--clear", "Forget it."),
    ):
        function = click.option(name, is_flag=True, help=text)(function)
    return json_option(function)


def keep_secret(
    app: App,
    name: str,
    title: str,
    *,
    clear: bool,
    show: bool,
    where: bool,
    check: Callable[[str], str | None] = lambda value: None,
    make: Callable[[], str] | None = None,
) -> None:
    """Set, clear or show the secret `name`; `title` is what people call it.

    `check` says what is wrong with a value, if anything is; `make` makes one where the answer to
    the question is empty. Raises `click.UsageError`, and what `Secrets` raises.
    """
    from aiplayground.secrets import Secrets

    if clear + show + where > 1:
        raise click.UsageError("Choose one of --clear, --show and --where.")
    kept = Secrets(app.paths)
    if clear:
        kept.clear(name)
    elif not (show or where):
        _set(app, kept, name, title, check, make)
    _tell(app, kept, name, title, show=show)


def check_api_key(value: str) -> str | None:
    """Say what is wrong with an API key: it must fit into a header, and not be guessed."""
    if len(value) < LEAST_KEY:
        return f"It has {len(value)} characters, and needs {LEAST_KEY} at least."
    if not value.isascii() or " " in value:
        return "Use letters, digits and signs of ASCII, without spaces."
    return None


def new_api_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_urlsafe(KEY_BYTES)


def _set(
    app: App,
    kept: Secrets,
    name: str,
    title: str,
    check: Callable[[str], str | None],
    make: Callable[[], str] | None,
) -> None:
    value = _read(title, can_make=make is not None)
    if not value and make is not None:
        value = make()
    wrong = check(value) if value else "It is empty."
    if wrong:
        raise click.UsageError(f"This is no {title}: {wrong}")
    kept.set(name, value)
    if kept.problem and not app.json:
        warn(f"The system's keyring is not used: {kept.problem}.")


def _read(title: str, *, can_make: bool) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    hint = " (empty: make a new one)" if can_make else ""
    answer: str = click.prompt(
        f"{title}{hint}", hide_input=True, default="", show_default=False, err=True
    )
    return answer.strip()


def _tell(app: App, kept: Secrets, name: str, title: str, *, show: bool) -> None:
    place = kept.where(name)
    if show:
        value = kept.get(name, strict=True)
        if value is None:
            raise click.ClickException(f"There is no {title}.")
        say(value) if not app.json else print_json({"name": name, "value": value, "where": place})
    elif app.json:
        print_json({"name": name, "where": place})
    elif place is None:
        say(f"There is no {title}.")
    else:
        say(f"The {title} is in {place}.")
