"""The IPC methods of stores."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from .api import StoreAnswer, StoreInfo, StoreSnapshot
from .kernel import Kernel
from .stores import Store
from .stores.wire import described, whole

StoreName = Annotated[str, Field(min_length=1, max_length=64)]


async def list_stores(kernel: Kernel) -> list[StoreInfo]:
    """Return what stores there are, with their fields, getters and actions."""
    return [StoreInfo.model_validate(described(each)) for each in kernel.stores.kinds()]


async def get_store(kernel: Kernel, name: StoreName) -> StoreSnapshot:
    """Return where a store stands. Needs the token for a private store alone."""
    return StoreSnapshot.model_validate(whole(await _find(kernel, name)))


async def call_store(
    kernel: Kernel,
    name: StoreName,
    action: Annotated[str, Field(min_length=1, max_length=64)],
    params: list[Any] | dict[str, Any] = [],  # noqa: B006  # never changed
) -> StoreAnswer:
    """Call an action of a store, with positional or named parameters.

    Needs the token, unless the action only lists and the store is not private.
    """
    store = await _find(kernel, name)
    result = await store.call(action, params)
    return StoreAnswer(version=store.version, result=result)


async def _find(kernel: Kernel, name: str) -> Store[Any]:
    store: Store[Any] = await kernel.store(name)
    return store


def may_get(kernel: Kernel, values: BaseModel) -> bool:
    """Say whether a store may be read without the token; raises `InvalidParameters`."""
    return not kernel.stores.kind(getattr(values, "name")).private  # noqa: B009  # made at run time


def may_call(kernel: Kernel, values: BaseModel) -> bool:
    """Say whether an action may be called without the token; raises `InvalidParameters`."""
    kind = kernel.stores.kind(getattr(values, "name"))  # noqa: B009  # made at run time
    action = kind.find_action(getattr(values, "action"))  # noqa: B009  # made at run time
    return action.is_open and not kind.private
