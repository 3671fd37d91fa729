"""Which models of a service are in memory: loaded on demand, once, and gone when nobody uses them.

Decisions are `policy`'s; this module holds the table and runs the loads. A load belongs to the
service and not to the request that came first: that one may go away, the load goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from . import policy
from .errors import ServiceNotAvailable

Change = Callable[[str, str | None], None]
"""Called with a model and None when it was loaded, the reason when it was unloaded."""


class _State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True)
class _Entry:
    model: str
    state: _State
    busy: int = 0
    last_used: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None


class Residency:
    """The models of one service.

    `limit` is the number of models in memory at most, `idle_timeout` and `patience` (how long a
    load may wait for room) are in seconds.
    """

    def __init__(
        self,
        service: str,
        *,
        load: Callable[[str], Awaitable[None]],
        unload: Callable[[str], Awaitable[None]],
        changed: Change,
        limit: int,
        idle_timeout: float,
        patience: float,
        pinned: Collection[str] = (),
    ) -> None:
        self._service = service
        self._load = load
        self._unload = unload
        self._changed = changed
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._patience = patience
        self._pinned = set(pinned)
        self._entries: dict[str, _Entry] = {}
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._reaper: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that answer now."""
        return tuple(name for name, each in self._entries.items() if each.state is _State.READY)

    def busy(self, model: str) -> int:
        """How many jobs use the model now."""
        entry = self._entries.get(model)
        return entry.busy if entry else 0

    def pin(self, model: str, pinned: bool = True) -> None:
        """Keep a model in memory whatever happens, or let it go again."""
        (self._pinned.add if pinned else self._pinned.discard)(model)
        self._released.set()

    @asynccontextmanager
    async def use(self, model: str) -> AsyncIterator[None]:
        """Hold a model in memory for the length of a job, loading it first if need be."""
        entry = await self._acquire(model)
        try:
            yield
        finally:
            entry.busy -= 1
            entry.last_used = time.monotonic()
            self._released.set()

    async def ensure(self, model: str) -> None:
        """Bring a model into memory."""
        async with self.use(model):
            pass

    async def release(self, model: str, reason: str = "asked") -> None:
        """Unload a model that nobody uses; raise `ServiceNotAvailable` while it is busy."""
        entry = self._entries.get(model)
        if entry is None:
            return
        if entry.state is _State.READY and entry.busy:
            raise ServiceNotAvailable(
                f"{self._service}: {model} is in use by {entry.busy} request(s). "
                f"Wait for them, or stop the service.",
                details={"service": self._service, "model": model, "busy": entry.busy},
            )
        if entry.state is _State.READY:
            self._begin_unload(entry, self._unload_in_turn, reason)
        if entry.task is not None:
            await asyncio.shield(entry.task)

    def adopt(self, model: str) -> None:
        """Note a model that came up with its worker."""
        if model not in self._entries:
            self._entries[model] = _Entry(model, _State.READY)
            self._changed(model, None)
            self._watch_idle()

    def drop(self, models: Collection[str], reason: str) -> None:
        """Forget models whose worker is gone."""
        for model in models:
            entry = self._entries.get(model)
            if entry is not None and entry.state is not _State.LOADING:
                del self._entries[model]
                self._changed(model, reason)

    async def close(self) -> None:
        """Forget everything and end what is under way."""
        tasks = [each.task for each in self._entries.values() if each.task is not None]
        if self._reaper is not None:
            tasks.append(self._reaper)
        self._entries.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _acquire(self, model: str) -> _Entry:
        while True:
            entry = self._entries.get(model)
            if entry is not None and entry.state is _State.READY:
                entry.busy += 1
                return entry
            if entry is None:
                entry = self._begin_load(model)
            if entry.task is not None:
                # Shielded: the load is shared by all who wait, and goes on without any of them.
                await asyncio.shield(entry.task)

    def _begin_load(self, model: str) -> _Entry:
        entry = self._entries[model] = _Entry(model, _State.LOADING)
        entry.task = asyncio.create_task(self._run_load(entry), name=f"load {model}")
        # A failure reaches those who wait; when nobody does any more, it has been logged.
        entry.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return entry

    async def _run_load(self, entry: _Entry) -> None:
        try:
            async with self._one_at_a_time:
                await self._make_room(entry)
                await self._load(entry.model)
        except BaseException:
            self._forget(entry)
            raise
        entry.state, entry.task = _State.READY, None
        entry.last_used = time.monotonic()
        self._changed(entry.model, None)
        self._watch_idle()

    async def _make_room(self, incoming: _Entry) -> None:
        deadline = time.monotonic() + self._patience
        while len(residents := self._residents(incoming)) >= self._limit:
            self._released.clear()
            victim = policy.to_evict(residents, self._limit)
            if victim is not None:
                task = self._begin_unload(self._entries[victim], self._run_unload, "evicted")
                await asyncio.wait({task})
                continue
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._released.wait()
            except TimeoutError:
                raise self._no_room(incoming.model) from None

    def _no_room(self, model: str) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"{self._service}: no room for {model}: all {self._limit} models in memory are in use "
            f"or pinned. Try again later, or raise the setting 'residency.max_models'.",
            details={"service": self._service, "model": model, "loaded": list(self.loaded)},
        )

    def _residents(self, but: _Entry | None = None) -> list[policy.Resident]:
        return [
            policy.Resident(
                model=each.model,
                busy=each.busy,
                last_used=each.last_used,
                pinned=each.model in self._pinned,
            )
            for each in self._entries.values()
            if each is not but and each.state is _State.READY
        ]

    def _begin_unload(
        self, entry: _Entry, unload: Callable[[_Entry, str], Coroutine[Any, Any, None]], reason: str
    ) -> asyncio.Task[None]:
        entry.state = _State.UNLOADING
        entry.task = task = asyncio.create_task(unload(entry, reason), name=f"unload {entry.model}")
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _unload_in_turn(self, entry: _Entry, reason: str) -> None:
        async with self._one_at_a_time:
            await self._run_unload(entry, reason)

    async def _run_unload(self, entry: _Entry, reason: str) -> None:
        try:
            await self._unload(entry.model)
        finally:
            # Whatever went wrong, it must be loaded anew before it is used again.
            if self._forget(entry):
                self._changed(entry.model, reason)

    def _forget(self, entry: _Entry) -> bool:
        if self._entries.get(entry.model) is not entry:
            return False
        del self._entries[entry.model]
        return True

    def _watch_idle(self) -> None:
        if self._idle_timeout > 0 and (self._reaper is None or self._reaper.done()):
            self._reaper = asyncio.create_task(self._reap(), name=f"idle models {self._service}")

    async def _reap(self) -> None:
        """Unload what nobody uses; ends when there is nothing left to watch."""
        while self._entries:
            now = time.monotonic()
            for model in policy.expired(self._residents(), now, self._idle_timeout):
                self._begin_unload(self._entries[model], self._unload_in_turn, "idle")
            wait = policy.next_expiry(self._residents(), now, self._idle_timeout)
            self._released.clear()
            try:
                async with asyncio.timeout(wait if wait is not None else self._idle_timeout):
                    await self._released.wait()
            except TimeoutError:
                continue
