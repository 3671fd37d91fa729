"""Presets without a kernel: what is in the folders, and what one means to `aipg chat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters
from aiplayground.presets import (
    ChatParameters,
    Preset,
    PresetScan,
    load_presets,
    preset_folders,
)
from aiplayground.presets._choices import (
    FILE,
    Choice,
    fitting,
    preset_for_chat,
    read_choices,
)

from ._output import note, warn

if TYPE_CHECKING:
    from aiplayground._loader import PluginSet
    from aiplayground.paths import Paths

    from ._app import App


def scan(paths: Paths, plugins: PluginSet) -> tuple[PresetScan, list[str]]:
    """Return every preset, and which plugins could not say where theirs are."""
    brought: list[tuple[str, Any]] = []
    failures: list[str] = []
    for plugin in plugins.loaded:
        if "preset_folders" not in plugin.hooks:
            continue
        try:
            brought.append((plugin.name, plugin.plugin.preset_folders()))
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it is reported
            failures.append(f"{plugin.name}: no presets: {type(error).__name__}: {error}")
    return load_presets(preset_folders(paths, brought)), failures


def of_chat(app: App, name: str) -> ChatParameters:
    """Return what a preset means to a chat: `NAME` as it was chosen, or `NAME/VARIANT`.

    Raises `InvalidParameters` if there is none of the name, or it is of another type.
    """
    from ._discovery import discover

    found, failures = scan(app.paths, discover(app))
    for failure in failures:
        warn(failure)
    try:
        given = preset_for_chat([each.preset for each in found.presets], name, _choices(app))
    except InvalidParameters:
        for problem in found.problems:
            warn(f"{problem}.")  # it may be in there
        raise
    for key in given.unused:
        note(f"(the setting '{key}' of '{name}' means nothing to a chat)")
    return given


def without() -> ChatParameters:
    """Return what no preset means to a chat: nothing."""
    return ChatParameters()


def chosen_in(app: App, preset: Preset) -> Choice:
    """Return what was chosen in a preset, as far as it still fits."""
    return fitting(preset, _choices(app).get(preset.name, Choice()))


def _choices(app: App) -> Mapping[str, Choice]:
    return read_choices(app.paths.state / FILE)[1]
