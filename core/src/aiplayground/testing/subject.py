"""What is examined: a backend, and how to make it small enough for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A backend to examine: exactly one of `plugin`, `manifest` and `attach`.

    `plugin`: the name of a plugin module, the module, or a plugin object. `manifest`: the path of
    an `aiplayground.toml`. `attach`: the base URL of an endpoint that runs already; with `plugin`
    or `manifest` too, it is that backend which is attached to it (name the `service`). Its key
    and the rest go into `settings`.
    `service`: which one, if there are several. `settings`: in the shape of the settings file.
    `model`: the one to ask; without it, the first that the backend lists. `model_folders`: where
    models lie. `skip`: rules not to check, each with the reason why. `timeouts`: replaces kernel
    timeouts, in seconds (`TimeoutSettings`). `patience`: seconds until a step counts as hung.

    Raises ValueError when it makes no sense.
    """

    plugin: Any = None
    manifest: Path | str | None = None
    attach: str | None = None
    service: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    model_folders: Sequence[Path | str] = ()
    skip: Mapping[str, str] = field(default_factory=dict)
    timeouts: Mapping[str, float] = field(default_factory=dict)
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        if self.plugin is not None and self.manifest is not None:
            raise ValueError("A Subject has a plugin or a manifest, not both.")
        if self.plugin is None and self.manifest is None and self.attach is None:
            raise ValueError("A Subject has a plugin, a manifest or an attached endpoint.")
        if self.patience <= 0:
            raise ValueError("A Subject's patience is a number of seconds above 0.")

    @property
    def name(self) -> str:
        """What reports call it."""
        if self.plugin is None:
            return str(self.manifest or self.attach)
        if isinstance(self.plugin, str):
            return self.plugin
        return str(getattr(self.plugin, "__name__", type(self.plugin).__name__))

    @property
    def module(self) -> str | None:
        """The name of the plugin's module, if the plugin is a module."""
        if isinstance(self.plugin, str):
            return self.plugin
        return self.name if hasattr(self.plugin, "__spec__") else None

    def load(self) -> Any:
        """Return the plugin object; raises whatever importing it does."""
        return import_module(self.plugin) if isinstance(self.plugin, str) else self.plugin
