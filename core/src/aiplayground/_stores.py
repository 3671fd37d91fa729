"""The stores of one kernel: found by name, made at first use, closed when the kernel goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload

from .errors import InvalidParameters, PluginError, ServiceNotAvailable, suggest

if TYPE_CHECKING:
    from .kernel import Kernel
    from .stores import Store
    from .stores.backend_services import BackendServicesStore
    from .stores.chat import OpenAiCompatibleChatStore
    from .stores.models import ModelsStore
    from .stores.presets import PresetsStore

BUILT_IN: Mapping[str, str] = {
    "backendServices": "aiplayground.stores.backend_services:BackendServicesStore",
    "models": "aiplayground.stores.models:ModelsStore",
    "presets": "aiplayground.stores.presets:PresetsStore",
    "openAiCompatibleChat": "aiplayground.stores.chat:OpenAiCompatibleChatStore",
}
"""The kernel's own stores, each as "package.module:StoreClass"."""


class Stores:
    """What `kernel.stores` is: the stores by their names."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._homes: dict[str, tuple[str, str]] | None = None
        self._kinds: dict[str, type[Store[Any]]] = {}
        self._open: dict[str, asyncio.Task[Store[Any]]] = {}
        self._closed = False

    @overload
    async def open(self, name: Literal["backendServices"]) -> BackendServicesStore: ...
    @overload
    async def open(self, name: Literal["models"]) -> ModelsStore: ...
    @overload
    async def open(self, name: Literal["presets"]) -> PresetsStore: ...
    @overload
    async def open(self, name: Literal["openAiCompatibleChat"]) -> OpenAiCompatibleChatStore: ...
    @overload
    async def open(self, name: str) -> Any: ...
    async def open(self, name: str) -> Any:
        """Return a store, made and brought up at first use; N callers get the same one.

        Raises `InvalidParameters` if there is none of that name, and what its `open` raises: the
        next call tries again.
        """
        kind = self.kind(name)
        if self._closed:
            raise ServiceNotAvailable("The kernel is shut down.")
        if name not in self._open:
            making = asyncio.create_task(self._make(kind), name=f"open store {name}")
            self._open[name] = making
            making.add_done_callback(partial(self._made, name))
        return await asyncio.shield(self._open[name])  # others may wait for it as well

    def _made(self, name: str, making: asyncio.Task[Store[Any]]) -> None:
        failed = making.cancelled() or making.exception() is not None
        if failed and self._open.get(name) is making:
            del self._open[name]

    async def _make(self, kind: type[Store[Any]]) -> Store[Any]:
        store = kind(self._kernel)
        try:
            await store.open()
        except BaseException:
            await store.close()
            raise
        return store

    def names(self) -> tuple[str, ...]:
        """Return the names of all stores."""
        return tuple(self._all())

    def kinds(self) -> list[type[Store[Any]]]:
        """Return the classes of all stores; one that is none is logged and left out."""
        found: list[type[Store[Any]]] = []
        for name in self.names():
            try:
                found.append(self.kind(name))
            except PluginError as error:
                self._refuse(error.message)
        return found

    def kind(self, name: str) -> type[Store[Any]]:
        """Return the class of a store.

        Raises `InvalidParameters` if there is none, `PluginError` if a plugin's is none.
        """
        if name not in self._kinds:
            known = self._all()
            if name not in known:
                raise InvalidParameters(
                    f"There is no store '{name}'.{suggest(name, known)}",
                    details={"store": name, "stores": list(known)},
                )
            self._kinds[name] = load_store(name, *known[name])
        return self._kinds[name]

    def _all(self) -> dict[str, tuple[str, str]]:
        """Return who brings each store, and its place."""
        if self._homes is None:
            homes = {name: ("aiplayground", place) for name, place in BUILT_IN.items()}
            for plugin, brought in self._kernel.brought("register_stores"):
                if not isinstance(brought, Mapping):
                    self._refuse(f"{plugin}: register_stores must return a mapping of names.")
                    continue
                for name, place in brought.items():
                    if name in homes:
                        self._refuse(f"{plugin}: store '{name}' is {homes[name][0]}'s already.")
                    else:
                        homes[str(name)] = (plugin, str(place))
            self._homes = homes
        return self._homes

    def _refuse(self, message: str) -> None:
        self._kernel.log().logger.error("%s It is left out.", message)

    async def close(self) -> None:
        """Close every store."""
        self._closed = True
        making, self._open = list(self._open.values()), {}
        for task in making:
            if not task.done():
                task.cancel()
        if making:
            await asyncio.wait(making)
        for task in making:
            if not task.cancelled() and task.exception() is None:
                await task.result().close()


def load_store(name: str, plugin: str, place: str) -> type[Store[Any]]:
    """Return the class of a store; raises `PluginError`."""
    from .stores import Store

    module, _, attribute = place.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(
            f"{plugin}: store '{name}': {place} cannot be imported: {error}."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Store)):
        raise PluginError(f"{plugin}: store '{name}': {place} is no class with Store as its base.")
    if getattr(kind, "name", None) != name:
        raise PluginError(f"{plugin}: store '{name}': {place} must have this name as its `name`.")
    kind.state_type()
    for each in kind.actions().values():
        _ = each.parameters, each.result  # what is wrong with them shows now
    return kind
