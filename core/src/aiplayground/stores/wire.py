"""Stores as other programs see them: plain data."""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_camel

from ._observe import Change
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

    A snapshot has the whole `state` in the place of `changes`.
    """
    state, before = change.state, change.before
    getters = type(state).getters()
    if before is not None:
        getters = tuple(each for each in getters if getattr(state, each) != getattr(before, each))
    return {
        "store": change.store,
        "version": change.version,
        "state" if change.snapshot else "changes": plain_fields(state, change.changes),
        "getters": plain_getters(state, getters),
    }


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
