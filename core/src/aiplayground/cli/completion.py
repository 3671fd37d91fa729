"""`aipg completion`: the script that lets a shell complete `aipg`; and what completes words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._app import App

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog="""\b
bash   eval "$(aipg completion bash)"   in ~/.bashrc
zsh    eval "$(aipg completion zsh)"    in ~/.zshrc, after compinit
fish   aipg completion fish > ~/.config/fish/completions/aipg.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from .root import COMPLETE_VARIABLE, PROGRAM, root

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"This version of click has no completion for {shell}.")
    click.echo(kind(root, {}, PROGRAM, COMPLETE_VARIABLE).source())


def complete_service(ctx: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the name of a service."""
    from ._discovery import discover

    names = [spec.name for plugin in discover(_app(ctx)).loaded for spec in plugin.backends]
    return _items(names, word)


def complete_model(ctx: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the name of a model; a kernel would take too long to ask."""
    from aiplayground._library import CACHE
    from aiplayground.models import ModelIndex

    from ._discovery import discover, model_files
    from .models import model_paths

    app = _app(ctx)
    paths, index = model_paths(app), ModelIndex(app.paths.cache / CACHE)
    scan = index.scan(paths.roots(), model_files(discover(app)), paths.kind_of)
    return _items([model.name for model in scan.models], word)


def complete_plugin(ctx: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the name of a plugin, whether or not it loads."""
    from ._discovery import discover

    return _items(discover(_app(ctx)).names, word)


def complete_setting(ctx: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Complete the key of a setting."""
    from ._settings_view import SettingsView

    return _items([row.key for row in SettingsView.read(_app(ctx)).rows()], word)


def _app(ctx: click.Context) -> App:
    # While completing, no command runs: what `--home` says is with the root's parameters.
    return App(home=ctx.find_root().params.get("home"))


def _items(names: list[str], word: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(word)]
