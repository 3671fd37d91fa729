"""What was chosen in presets: a variant, and values in the place of defaults; kept in one file.

The store `presets` writes it. Whoever takes a preset by its name (a conversation, `aipg chat
--preset`) reads it through `preset_for_chat`, so that a name means the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiplayground.paths import file_error

from ._chat import ChatParameters, chat_parameters
from ._load import find_preset
from ._schema import Preset
from ._variants import apply_variant, find_variant

FILE = "presets.json"
"""The name of the file, in the folder for state."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen in a preset."""

    variant: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def fitting(preset: Preset, choice: Choice) -> Choice:
    """Return what still fits a preset, which may have become another meanwhile."""
    names = [each.name for each in preset.variants]
    variant = choice.variant if choice.variant in names else None
    settings = apply_variant(preset, variant).settings
    values = {
        key: value
        for key, value in choice.values.items()
        if key in settings and settings[key].fault(value) is None
    }
    return Choice(variant, values)


def preset_for_chat(
    presets: Sequence[Preset], name: str, choices: Mapping[str, Choice]
) -> ChatParameters:
    """Return what a preset means to a chat: `NAME` as it was chosen, or `NAME/VARIANT`.

    Raises `InvalidParameters` if there is none of the name, or it is of another type.
    """
    wanted, slash, variant = name.partition("/")
    whole = any(each.name.casefold() == name.casefold() for each in presets)
    preset = find_preset(presets, name if whole else wanted)
    choice = choices.get(preset.name, Choice())
    if slash and not whole:
        choice = Choice(find_variant(preset.variants, variant).name, choice.values)
    choice = fitting(preset, choice)
    return chat_parameters(apply_variant(preset, choice.variant), choice.values)


def read_choices(file: Path) -> tuple[str | None, dict[str, Choice]]:
    """Return the active preset's name and what was chosen in each. Blocks.

    A damaged file counts as none, and the next choice writes it anew.
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        choices = {
            name: Choice(each["variant"], dict(each["values"]))
            for name, each in told["choices"].items()
        }
        return told["active"], choices
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None, {}


def write_choices(file: Path, active: str, choices: Mapping[str, Choice]) -> None:
    """Keep what was chosen; raises `FileOperationError`. Blocks."""
    told = {
        name: {"variant": each.variant, "values": dict(each.values)}
        for name, each in choices.items()
        if each.variant is not None or each.values
    }
    part = file.with_suffix(".part")
    try:
        part.write_text(json.dumps({"active": active, "choices": told}), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise file_error("write", file, error) from error
