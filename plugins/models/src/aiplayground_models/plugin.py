"""The hooks of the plugin `models`. Everything heavy is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiplayground.hookspecs import hookimpl

AIPG_HOOK_API = 1


@hookimpl
def register_methods() -> Mapping[str, Callable[..., Any]]:
    """Bring `downloadModel` and what goes with it."""
    from .methods import METHODS

    return dict(METHODS)


@hookimpl
def register_routes() -> Sequence[Any]:
    """Bring `POST /api/downloadModel`."""
    from .routes import ROUTES

    return ROUTES


@hookimpl
def register_commands() -> Mapping[str, str]:
    """Bring `aipg pull`, `downloads`, `config hf-token` and `models suggest`."""
    return {
        "pull": "aiplayground_models.commands.pull:command",
        "config hf-token": "aiplayground_models.commands.token:command",
        "downloads": "aiplayground_models.commands.downloads:command",
        "models suggest": "aiplayground_models.commands.suggest:command",
    }
