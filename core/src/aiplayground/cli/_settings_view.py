"""The settings as the command line shows them: the kernel's and those of installed backends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidSettings, PluginError, suggest
from aiplayground.settings import SettingRow, load_layers, rows, settings_class, split_key

from ._discovery import discover

if TYPE_CHECKING:
    from pydantic import BaseModel

    from aiplayground.settings import Layers

    from ._app import App


@dataclass(slots=True)
class SettingsView:
    """All sources of settings, and the models of the installed backends.

    `problems` says what is wrong with plugins whose own settings are not known for that reason.
    """

    layers: Layers
    services: dict[str, type[BaseModel]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, app: App) -> SettingsView:
        """Read settings and plugins. Raises `InvalidSettings` and `FileOperationError`."""
        view = cls(load_layers(app.paths))
        for plugin in discover(app).loaded:
            for spec in plugin.backends:
                try:
                    view.services[spec.name] = settings_class(spec)
                except PluginError as error:
                    view.problems.append(error.message)
        return view

    def rows(self) -> list[SettingRow]:
        """Return every setting."""
        return rows(self.layers, self.services)

    def row(self, key: str) -> SettingRow:
        """Return one setting. Raises `InvalidSettings` with a suggestion if there is no such."""
        found = {split_key(row.key): row for row in self.rows()}
        path = split_key(key)
        if path in found:
            return found[path]
        below = [row.key for known, row in found.items() if known[: len(path)] == path]
        if below:
            raise InvalidSettings(f"'{key}' is a table. Its keys: {', '.join(below)}.")
        known = [row.key for row in found.values()]
        hint = suggest(key, known) or " `aipg config list` shows all settings."
        raise InvalidSettings(f"There is no setting '{key}'.{hint}", details={"key": key})


def as_text(value: Any) -> str:
    """Write a setting's value as `config set` takes it; what is not set is empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
