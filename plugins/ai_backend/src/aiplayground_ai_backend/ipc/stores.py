"""The stores that clients follow.

Each change is a notification whose `version` is one more than the last; a client that misses one
follows the store anew. One that reads too slowly gets the whole state in place of what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, InvalidParameters
from aiplayground.stores.wire import UPDATE, update

from . import rpc

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.stores import Change, Changes

QUEUE = 256
"""Changes of a store that wait for one client; one more, and the whole state takes their place."""


class StoreEncoder:
    """Writes changes as text: the newest of each store once, for however many clients."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, str]] = {}

    def encode(self, change: Change[Any], lost: int) -> str:
        """Return the notification of a change; `lost` counts what a snapshot stands for."""
        if change.snapshot:
            return rpc.write(rpc.call(UPDATE, {**update(change), "lost": lost}))
        version, text = self._last.get(change.store, (-1, ""))
        if version != change.version:
            text = rpc.write(rpc.call(UPDATE, update(change)))
            self._last[change.store] = (change.version, text)
        return text


class StoreFeed:
    """What one client follows. `private` stores are for those who have shown the token."""

    def __init__(
        self,
        kernel: Kernel,
        send: Callable[[str], Awaitable[None]],
        encoder: StoreEncoder,
        *,
        private: bool,
        gone: type[AIPlaygroundError],
    ) -> None:
        self._kernel = kernel
        self._send = send
        self._encoder = encoder
        self._private = private
        self._gone = gone
        self._followed: dict[str, tuple[Changes[Any], asyncio.Task[None] | None]] = {}

    def readable(self, names: Sequence[str] | None) -> list[str]:
        """Return the stores that are meant, all if none is named.

        Raises `InvalidParameters` for one that there is not, or that needs the token.
        """
        if names is None:
            kinds = self._kernel.stores.kinds()
            return [each.name for each in kinds if self._private or not each.private]
        for name in names:
            if self._kernel.stores.kind(name).private and not self._private:
                raise InvalidParameters(
                    f"The store '{name}' needs the kernel's token.",
                    details={"reason": "unauthorized", "store": name},
                )
        return list(dict.fromkeys(names))

    async def follow(self, names: Sequence[str] | None) -> tuple[list[Any], Callable[[], None]]:
        """Begin, or begin anew; returns where they stand, and what lets changes follow."""
        wanted = self.readable(names)
        stores = [await self._kernel.store(name) for name in wanted]
        await self.end(wanted)
        told: list[Any] = []
        begun: dict[str, Changes[Any]] = {}
        for name, store in zip(wanted, stores, strict=True):
            changes = store.subscribe(maxsize=QUEUE)
            begun[name] = changes
            self._followed[name] = (changes, None)
            told.append(update(await anext(changes)))

        def go_on() -> None:
            for name, changes in begun.items():
                if self._followed.get(name) == (changes, None):
                    pump = asyncio.create_task(self._deliver(changes), name=f"IPC store {name}")
                    self._followed[name] = (changes, pump)

        return told, go_on

    async def _deliver(self, changes: Changes[Any]) -> None:
        with suppress(self._gone):
            async for change in changes:
                await self._send(self._encoder.encode(change, changes.dropped))

    async def end(self, names: Sequence[str] | None = None) -> None:
        """Follow these stores no longer; none of them if no name is given."""
        wanted = list(self._followed) if names is None else names
        ended = [self._followed.pop(name) for name in wanted if name in self._followed]
        pumps = [pump for _, pump in ended if pump is not None]
        for changes, _ in ended:
            changes.close()
        for pump in pumps:
            pump.cancel()
        if pumps:
            await asyncio.wait(pumps)


def stopped_by(method: str, params: Any) -> str | None:
    """Return the service that this call would stop through the store `backendServices`."""
    if method != "stores:call":
        return None
    given = params if isinstance(params, dict) else dict(zip(_CALL, params, strict=False))
    inner = given.get("params") or [None]
    if (given.get("name"), given.get("action")) != ("backendServices", "stopService"):
        return None
    service = inner.get("serviceName") if isinstance(inner, dict) else inner[0]
    return service if isinstance(service, str) else None


_CALL = ("name", "action", "params")
