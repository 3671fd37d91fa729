"""Headless, observable state for user interfaces: one instance of each store in a kernel.

    presets = await kernel.store("presets")
    await presets.set_active_preset(0)
    print(presets.state.active_preset)
    async with presets.subscribe() as changes:
        async for change in changes:
            print(change.changes)

`await client.store("presets")` of `aiplayground.client` is the same of a kernel elsewhere. A plugin
brings stores of its own with the hook `register_stores`: classes with `Store` as their base.
"""

from __future__ import annotations

from ._observe import Change, Changes, Observable
from ._state import StoreState, getter
from ._store import Store, action
from ._surface import StoreView

__all__ = [
    "Change",
    "Changes",
    "Observable",
    "Store",
    "StoreState",
    "StoreView",
    "action",
    "getter",
]
