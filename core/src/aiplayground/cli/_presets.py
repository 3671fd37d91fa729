"""Presets without a kernel: what is in the folders, and what one means to `aipg chat`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiplayground.presets import (
    ChatParameters,
    PresetScan,
    apply_variant,
    chat_parameters,
    find_preset,
    load_presets,
    preset_folders,
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
    """Return what a preset (`NAME`, or `NAME/VARIANT`) means to a chat.

    Raises `InvalidParameters` if there is none of the name, or it is of another type.
    """
    from ._discovery import discover

    found, failures = scan(app.paths, discover(app))
    for failure in failures:
        warn(failure)
    presets = [each.preset for each in found.presets]
    wanted, slash, variant = name.partition("/")
    whole = any(each.name.casefold() == name.casefold() for each in presets)
    preset = find_preset(presets, name if whole else wanted)
    given = chat_parameters(apply_variant(preset, variant if slash and not whole else None))
    for key in given.unused:
        note(f"(the setting '{key}' of '{preset.name}' means nothing to a chat)")
    return given
