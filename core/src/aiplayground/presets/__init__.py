"""Presets: named settings for a kind of work, one JSON file each.

Source of the format: the API reference, "Preset Schema". What is beyond it is optional
(`description`, `tags`, `variants`); keys that are not known are kept.

    found = load_presets([PresetFolder(Path("presets"), "user")])
    for problem in found.problems:
        print(problem)
"""

from __future__ import annotations

from ._chat import ChatParameters, chat_parameters
from ._load import (
    BUILT_IN,
    LoadedPreset,
    PresetFolder,
    PresetProblem,
    PresetScan,
    check_file,
    find_preset,
    load_presets,
)
from ._places import preset_folders
from ._schema import Preset, Setting, Variant
from ._values import check_value, resolve_values
from ._variants import apply_variant

__all__ = [
    "BUILT_IN",
    "ChatParameters",
    "LoadedPreset",
    "Preset",
    "PresetFolder",
    "PresetProblem",
    "PresetScan",
    "Setting",
    "Variant",
    "apply_variant",
    "chat_parameters",
    "check_file",
    "check_value",
    "find_preset",
    "load_presets",
    "preset_folders",
    "resolve_values",
]
