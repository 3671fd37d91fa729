"""Turning a plugin off and on: the settings `plugins.deny` and `plugins.allow`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, suggest
from aiplayground.settings import load_layers, set_value

from ._discovery import discover

if TYPE_CHECKING:
    from aiplayground._loader import PluginSet

    from ._app import App


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was changed, in words and as data; `written` maps settings to their new values."""

    text: str
    written: dict[str, list[str]]
    path: str
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the part of the JSON answer that is the same for both commands."""
        return {"settings": self.written, "path": self.path, "warnings": list(self.warnings)}


def disable(app: App, name: str) -> Outcome:
    """Add a plugin to `plugins.deny`. Raises `InvalidParameters` for one that is not there."""
    plugins = discover(app)
    _check_name(name, plugins.names)
    denied = list(load_layers(app.paths).kernel().plugins.deny)
    if name in denied:
        return Outcome(f"{name} is turned off already.", {}, str(app.paths.config_file))
    follows = (
        f"{name} will not load from the next start on; it stays installed.{_lost(plugins, name)}"
    )
    return _write(app, {"plugins.deny": [*denied, name]}, follows)


def enable(app: App, name: str) -> Outcome:
    """Take a plugin out of `plugins.deny`, and add it to `plugins.allow` where that is set."""
    now = load_layers(app.paths).kernel().plugins
    _check_name(name, [*discover(app).names, *now.deny])
    changes: dict[str, list[str]] = {}
    if name in now.deny:
        changes["plugins.deny"] = [each for each in now.deny if each != name]
    if now.allow is not None and name not in now.allow:
        changes["plugins.allow"] = [*now.allow, name]
    if not changes:
        return Outcome(f"{name} is not turned off.", {}, str(app.paths.config_file))
    return _write(app, changes, f"{name} will load from the next start on.")


def _check_name(name: str, known: Sequence[str]) -> None:
    if name not in known:
        close = suggest(name, known) or f" There is: {', '.join(sorted(set(known))) or 'none'}."
        raise InvalidParameters(
            f"No plugin called '{name}' is installed.{close}", details={"plugin": name}
        )


def _lost(plugins: PluginSet, name: str) -> str:
    for plugin in plugins.loaded:
        if plugin.name == name and plugin.backends:
            services = ", ".join(spec.name for spec in plugin.backends)
            return f" Without it there is no {services}."
    return ""


def _write(app: App, changes: dict[str, list[str]], follows: str) -> Outcome:
    for key, names in changes.items():
        # A JSON list of names is one in TOML too.
        set_value(app.paths, key, json.dumps(names))
    path = str(app.paths.config_file)
    origins = {key: load_layers(app.paths).origin(key) for key in changes}
    hidden = tuple(
        f"{origin} sets {key} too, and that is what counts."
        for key, origin in origins.items()
        if not origin.startswith(path)
    )
    return Outcome(f"{follows}  ({path})", changes, path, hidden)
