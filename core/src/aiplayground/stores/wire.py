"""Stores as other programs see them: plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from ._observe import Change
from ._patch import Operation, diff, escape, weigh, weight_of
from ._state import StoreState, has_parts, outside, plain_field, plain_fields, plain_getters
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
        told |= _differences(before, state, change.changes)
        getters = tuple(each for each in getters if getattr(state, each) != getattr(before, each))
    return {**told, "getters": plain_getters(state, getters)}


def _differences(before: StoreState, after: StoreState, names: Iterable[str]) -> dict[str, Any]:
    """Return whole fields as `changes`, and those of which a part is shorter as `patches`."""
    changes: dict[str, Any] = {}
    patches: list[Operation] = []
    for name in names:
        operations = _shorter(type(after), name, getattr(before, name), getattr(after, name))
        if operations is None:
            changes |= plain_fields(after, (name,))
        else:
            patches += operations
    return {"changes": changes, "patches": patches} if patches else {"changes": changes}


def _shorter(
    kind: type[StoreState], name: str, before: Any, after: Any
) -> Sequence[Operation] | None:
    """Return what makes one value of a field of another, if that is shorter than the field.

    It takes as long as what became another is; the rest of a long field is only counted.
    """
    first, last = _untouched(before, after) if has_parts(kind, name) else (0, 0)
    if first + last:
        one = plain_field(kind, name, before[first : len(before) - last])
        two = plain_field(kind, name, after[first : len(after) - last])
    else:
        one, two = plain_field(kind, name, before), plain_field(kind, name, after)
    operations = list(diff(one, two, f"/{escape(outside(kind, name))}", first))
    weight = weight_of(operations)
    if weight < weigh(two, weight + 1) + _LEAST * (first + last):
        return operations
    if first + last and weight < weigh(plain_field(kind, name, after), weight + 1):
        return operations
    return None


_LEAST = 2
"""Characters of an item of a list in JSON at least, with its comma."""


def _untouched(before: Sequence[Any], after: Sequence[Any]) -> tuple[int, int]:
    """Return how many items at the beginning and at the end are the very same."""
    most = min(len(before), len(after))
    first = next((at for at in range(most) if before[at] is not after[at]), most)
    most -= first
    last = next((at for at in range(most) if before[-1 - at] is not after[-1 - at]), most)
    return first, last


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
