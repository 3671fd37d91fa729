"""Stores as other programs see them: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from ._observe import Change
from ._patch import Operation, diff, escape, is_lighter
from ._state import plain_fields, plain_getters
from ._store import Store

UPDATE = "storeUpdate"
"""The notification of a change."""


def whole(store: Store[Any]) -> dict[str, Any]:
    """Return where a store stands: `store`, `version`, `state` and `getters`."""
    state = store.state
    return {
        "store": store.name,
        "version": store.version,
        "state": plain_fields(state, type(state).model_fields),
        "getters": plain_getters(state, type(state).getters()),
    }


def update(change: Change[Any]) -> dict[str, Any]:
    """Return a change: `changes` and `getters` hold what became another.

    Of a field that is long and became a little different `patches` say what; the key is left out
    where there are none. A snapshot has the whole `state` in the place of both.
    """
    state, before = change.state, change.before
    told: dict[str, Any] = {"store": change.store, "version": change.version}
    getters = type(state).getters()
    if before is None:
        told["state"] = plain_fields(state, change.changes)
    else:
        told |= _differences(
            plain_fields(before, change.changes), plain_fields(state, change.changes)
        )
        getters = tuple(each for each in getters if getattr(state, each) != getattr(before, each))
    return {**told, "getters": plain_getters(state, getters)}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return whole fields as `changes`, and those of which a part is shorter as `patches`."""
    changes: dict[str, Any] = {}
    patches: list[Operation] = []
    for name, value in after.items():
        operations = list(diff(before[name], value, f"/{escape(name)}"))
        if is_lighter(operations, value):
            patches += operations
        else:
            changes[name] = value
    return {"changes": changes, "patches": patches} if patches else {"changes": changes}


def described(kind: type[Store[Any]]) -> dict[str, Any]:
    """Return what there is in a store, without making it."""
    state = kind.state_type()
    return {
        "name": kind.name,
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "private": kind.private,
        "fields": [field.alias or name for name, field in state.model_fields.items()],
        "getters": [to_camel(each) for each in state.getters()],
        "actions": [
            {"name": each.name, "parameters": each.outside_names, "open": each.is_open}
            for each in kind.actions().values()
        ],
    }
