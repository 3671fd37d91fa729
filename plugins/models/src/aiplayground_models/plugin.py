"""The hooks of the plugin `models`. Everything heavy is imported where it is used."""

from __future__ import annotations

from collections.abc import Mapping

from aiplayground.hookspecs import hookimpl

AIPG_HOOK_API = 1


@hookimpl
def register_commands() -> Mapping[str, str]:
    """Bring `aipg pull` and `aipg config hf-token`."""
    return {}
