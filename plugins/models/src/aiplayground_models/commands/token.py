"""`aipg config hf-token`: the token for the Hugging Face Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from aiplayground.cli._output import print_json, say
from aiplayground.cli._secret import keep_secret, secret_options

if TYPE_CHECKING:
    from aiplayground.cli._app import App


@click.command("hf-token")
@secret_options
@click.option("--test", is_flag=True, help="Ask the Hub whose token it is.")
@click.pass_obj
def command(app: App, /, *, test: bool, clear: bool, show: bool, where: bool) -> None:
    """Store the token for the Hugging Face Hub.

    Gated and private models need one: make it at https://huggingface.co/settings/tokens (it needs
    read access alone). It is asked for without showing it, or read from stdin, and kept in the
    system's keyring, else in a file of yours alone. The variable HF_TOKEN counts before it.
    """
    from aiplayground.secrets import HF_TOKEN

    if test:
        if clear or show or where:
            raise click.UsageError("Use --test alone.")
        _test(app)
        return
    title = "token for the Hugging Face Hub"
    keep_secret(app, HF_TOKEN, title, clear=clear, show=show, where=where, check=check_token)


def check_token(value: str) -> str | None:
    """Say what is wrong with a token: it must fit into a header."""
    if not value.isascii() or not value.isprintable() or " " in value:
        return "A token has letters, digits and '_' alone."
    return None


def _test(app: App) -> None:
    # Read at import: else the library asks huggingface.co, wherever the Hub is, what it runs in.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from aiplayground.errors import ServiceNotAvailable
    from aiplayground.secrets import HF_TOKEN, Secrets
    from aiplayground.settings import load_layers
    from aiplayground_models.fetcher.hub import whoami
    from aiplayground_models.network import network_of

    kept = Secrets(app.paths)
    token = kept.get(HF_TOKEN, strict=True)
    if token is None:
        raise ServiceNotAvailable("There is no token. Set one with: aipg config hf-token")
    network = network_of(load_layers(app.paths).kernel().hub, token)
    name = whoami(network)
    if app.json:
        print_json({"endpoint": network.endpoint, "name": name, "where": kept.where(HF_TOKEN)})
    else:
        say(f"{network.endpoint} knows the token in {kept.where(HF_TOKEN)} as that of {name}.")
