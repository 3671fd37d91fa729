"""The settings that a manifest declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._check import Table, is_a, shown
from ._schema import KERNEL_SETTINGS, KINDS, Kind, Setting

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TYPES: Mapping[Kind, type] = {
    "text": str,
    "int": int,
    "float": float,
    "bool": bool,
    "path": str,
    "list": list,
}
_NUMBERS = ("int", "float")


def read_settings(top: Table) -> tuple[Setting, ...]:
    """Return what the table `settings` declares."""
    given = top.take("settings", dict, {})
    table = top.below("settings", given)
    found = (_setting(table, name, table.take(name, dict)) for name in given)
    return tuple(each for each in found if each is not None)


def _setting(settings: Table, name: str, given: Mapping[str, Any] | None) -> Setting | None:
    if given is None:
        return None
    if not _NAME.fullmatch(name) or name in KERNEL_SETTINGS:
        why = "every service has it already" if name in KERNEL_SETTINGS else "use a-z, 0-9 and _"
        settings.problem(f"'{name}' cannot be the name of a setting: {why}.", name)
        return None
    table = settings.below(name, given)
    default, options = table.take_any("default"), table.take("options", list, [])
    kind: Any = table.take_word("type", KINDS, _kind_of([default, *options]))
    description = table.take("description", str, "")
    least, most = _bound(table, "min", kind), _bound(table, "max", kind)
    table.no_others()
    setting = Setting(
        name=name,
        kind=kind,
        default=tuple(default) if isinstance(default, list) else default,
        least=least,
        most=most,
        options=tuple(options),
        description=description,
    )
    _check_values(table, setting)
    return setting


def _kind_of(values: list[Any]) -> Kind:
    """Return the type that values show, where a manifest does not say it."""
    value = next((each for each in values if each is not None), "")
    shown_by: Mapping[type, Kind] = {bool: "bool", int: "int", float: "float", list: "list"}
    return shown_by.get(type(value), "text")


def _bound(table: Table, name: str, kind: Kind) -> float | None:
    bound: float | None = table.take(name, float)
    if bound is not None and kind not in _NUMBERS:
        table.problem(f"only numbers have a '{name}', and this is of type '{kind}'.", name)
        return None
    return bound


def _check_values(table: Table, setting: Setting) -> None:
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    given: list[tuple[str, Any]] = [("default", default)] if default is not None else []
    given += [("options", each) for each in setting.options]
    for key, value in given:
        if not is_a(value, _TYPES[setting.kind]) or not _texts_only(value):
            what = f"{shown(value)} is not of type '{setting.kind}'."
            table.problem(f"'settings.{setting.name}': {what}", key)
        elif setting.kind in _NUMBERS and not _within(setting, value):
            table.problem(f"'settings.{setting.name}': {value} is not from min to max.", key)
    if default is not None and setting.options and setting.default not in setting.options:
        table.problem(
            f"'settings.{setting.name}': {shown(default)} is none of its options.", "default"
        )


def _texts_only(value: object) -> bool:
    return not isinstance(value, list) or all(isinstance(each, str) for each in value)


def _within(setting: Setting, value: float) -> bool:
    least = setting.least if setting.least is not None else value
    most = setting.most if setting.most is not None else value
    return least <= value <= most
