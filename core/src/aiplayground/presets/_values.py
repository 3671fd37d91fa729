"""Values that a person gives for the settings of a preset: enforced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiplayground.errors import InvalidParameters, suggest

from ._schema import Preset


def check_value(preset: Preset, key: str, value: Any) -> Any:
    """Return the value if the setting takes it; raises `InvalidParameters` with what it takes."""
    setting = preset.settings.get(key)
    if setting is None:
        known = list(preset.settings)
        raise InvalidParameters(
            f"The preset '{preset.name}' has no setting '{key}'.{suggest(key, known)}",
            details={"preset": preset.name, "setting": key, "settings": known},
        )
    wrong = setting.fault(value)
    if wrong is not None:
        limits = {"type": setting.type, "min": setting.min, "max": setting.max}
        options = list(setting.options) if setting.options is not None else None
        given = {**limits, "options": options}
        raise InvalidParameters(
            f"'{setting.name}' {wrong}.",
            details={"preset": preset.name, "setting": key}
            | {name: limit for name, limit in given.items() if limit is not None},
        )
    return value


def resolve_values(preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each setting: the given one, else its default, if it has one.

    Raises `InvalidParameters` for a value that its setting does not take, or a setting that there
    is not.
    """
    checked = {key: check_value(preset, key, value) for key, value in given.items()}
    values = {key: checked.get(key, each.default) for key, each in preset.settings.items()}
    return {key: value for key, value in values.items() if value is not None}
