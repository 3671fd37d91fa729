"""Which models of a service are in memory: loaded on demand, once, and gone when nobody uses them.

Decisions are `policy`'s; this module holds the table and runs the loads. A load belongs to the
service and not to the request that came first: that one may go away, the load goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from . import policy
from ._clock import now
from .errors import ServiceNotAvailable

Change = Callable[[str, str | None], None]
"""Called with a model and None when it was loaded, the reason when it was unloaded."""


CANCEL_WAIT = 5.0
"""Seconds that a load or unload may take to end once it is cancelled."""


class _State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True)
class _Entry:
    model: str
    state: _State
    busy: int = 0
    last_used: float = field(default_factory=now)
    task: asyncio.Task[None] | None = None


class _Use:
    """A job's claim on a model; a class, because every request makes one."""

    __slots__ = ("_entry", "_model", "_residency")

    def __init__(self, residency: Residency, model: str) -> None:
        self._residency = residency
        self._model = model

    async def __aenter__(self) -> None:
        self._entry = await self._residency.acquire(self._model)

    async def __aexit__(self, *exc: object) -> None:
        self._residency.let_go(self._entry)


class Residency:
    """The models of one service.

    `limit` is the number of models in memory at most, `idle_timeout` and `patience` (how long a
    load may wait for room) are in seconds. `admit` has memory promised to a load, or raises;
    `forget` takes that back when nothing was loaded.
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
        admit: Callable[[str], Awaitable[None]] | None = None,
        forget: Callable[[str], None] | None = None,
    ) -> None:
        self._service = service
        self._load = load
        self._unload = unload
        self._changed = changed
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._patience = patience
        self._pinned = set(pinned)
        self._admit = admit
        self._withdraw = forget
        self._entries: dict[str, _Entry] = {}
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._reaper: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that answer now."""
        return tuple(name for name, each in self._entries.items() if each.state is _State.READY)

    def has(self, model: str) -> bool:
        """Whether the model answers now."""
        entry = self._entries.get(model)
        return entry is not None and entry.state is _State.READY

    @property
    def moving(self) -> bool:
        """Whether a model is on its way into memory or out of it."""
        # A load that waits for memory holds no lock: what it waits for are unloads.
        loading = any(each.state is _State.LOADING for each in self._entries.values())
        return loading or self._one_at_a_time.locked()

    def residents(self) -> list[tuple[policy.Resident, bool]]:
        """Return every model, and whether it is on its way in or out."""
        return [
            (self._resident(each), each.state is not _State.READY)
            for each in self._entries.values()
        ]

    def leaving(self, model: str) -> list[str]:
        """Return the models that a load of this one would make go, since there are too many."""
        gone: list[str] = []
        residents = [each for each in self._residents() if each.model != model]
        while (name := policy.to_evict(residents, self._limit)) is not None:
            gone.append(name)
            residents = [each for each in residents if each.model != name]
        return gone

    def busy(self, model: str) -> int:
        """How many jobs use the model now."""
        entry = self._entries.get(model)
        return entry.busy if entry else 0

    def pin(self, model: str, pinned: bool = True) -> None:
        """Keep a model in memory whatever happens, or let it go again."""
        (self._pinned.add if pinned else self._pinned.discard)(model)
        self._released.set()

    def use(self, model: str) -> _Use:
        """Hold a model in memory for the length of a job, loading it first if need be."""
        return _Use(self, model)

    async def ensure(self, model: str) -> None:
        """Bring a model into memory."""
        async with self.use(model):
            pass

    async def release(self, model: str, reason: str = "asked") -> None:
        """Unload a model that nobody uses; raise `ServiceNotAvailable` while it is busy."""
        while (entry := self._entries.get(model)) is not None:
            if entry.busy and entry.state is not _State.UNLOADING:
                raise self._in_use(entry)
            loading = entry.state is _State.LOADING
            task = entry.task or self._begin_unload(entry, self._unload_in_turn(entry, reason))
            await asyncio.wait({task})
            if not loading and not task.cancelled() and (error := task.exception()) is not None:
                raise error

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

    async def clear(self, reason: str) -> None:
        """Forget everything and end what is under way: the service stops."""
        entries, self._entries = self._entries, {}
        tasks = {each.task for each in entries.values() if each.task is not None}
        if self._reaper is not None:
            tasks.add(self._reaper)
        for task in tasks:
            task.cancel()
        for entry in entries.values():
            if entry.state is not _State.LOADING:
                self._changed(entry.model, reason)
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_WAIT)

    async def acquire(self, model: str) -> _Entry:
        """Bring a model into memory and claim it for a job: that is `use`'s to call."""
        while True:
            entry = self._entries.get(model) or self._begin_load(model)
            if entry.state is _State.UNLOADING and entry.task is not None:
                await asyncio.wait({entry.task})
                continue
            # Claimed before it is loaded: between its load and its first job nothing evicts it.
            entry.busy += 1
            if entry.state is _State.READY:
                return entry
            try:
                await self._finished(entry)
            except BaseException:
                self.let_go(entry)
                raise
            if self._entries.get(model) is entry:
                return entry
            self.let_go(entry)  # its worker went away as soon as it was loaded

    async def _finished(self, entry: _Entry) -> None:
        """Wait for a load, which is shared by all who wait and goes on without any of them."""
        task = entry.task
        if entry.state is not _State.LOADING or task is None:
            return
        await asyncio.wait({task})
        if task.cancelled():
            raise ServiceNotAvailable(
                f"{self._service} was stopped while it loaded {entry.model}.",
                details={"service": self._service, "model": entry.model},
            )
        if (error := task.exception()) is not None:
            raise error

    def let_go(self, entry: _Entry) -> None:
        """Give a claim back."""
        entry.busy -= 1
        entry.last_used = now()
        self._released.set()

    def _in_use(self, entry: _Entry) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"{self._service}: {entry.model} is in use by {entry.busy} request(s). "
            f"Wait for them, or stop the service.",
            details={"service": self._service, "model": entry.model, "busy": entry.busy},
        )

    def _begin_load(self, model: str) -> _Entry:
        entry = self._entries[model] = _Entry(model, _State.LOADING)
        entry.task = asyncio.create_task(self._run_load(entry), name=f"load {model}")
        # A failure reaches those who wait; when nobody does any more, it has been logged.
        entry.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return entry

    async def _run_load(self, entry: _Entry) -> None:
        deadline = now() + self._patience
        try:
            # Before its turn: what makes room for it may be another load's turn to end.
            if self._admit is not None:
                await self._admit(entry.model)
            while not await self._load_if_room(entry):
                await self._wait_for_room(entry.model, deadline)
        except BaseException:
            self._forget(entry)
            if self._withdraw is not None and entry.model not in self._entries:
                self._withdraw(entry.model)
            raise
        entry.state, entry.task = _State.READY, None
        entry.last_used = now()
        self._changed(entry.model, None)
        self._watch_idle()

    async def _load_if_room(self, entry: _Entry) -> bool:
        async with self._one_at_a_time:
            # Cleared before looking, waited for after: what is released in between is not missed.
            self._released.clear()
            while len(residents := self._residents(entry)) >= self._limit:
                name = policy.to_evict(residents, self._limit)
                if name is None:
                    return False
                victim = self._entries[name]
                task = self._begin_unload(victim, self._run_unload(victim, "evicted"))
                await asyncio.wait({task})
                self._released.clear()
            await self._load(entry.model)
            return True

    async def _wait_for_room(self, model: str, deadline: float) -> None:
        # Without the lock: what would make room may itself be an unload that waits for its turn.
        try:
            async with asyncio.timeout(deadline - now()):
                await self._released.wait()
        except TimeoutError:
            raise self._no_room(model) from None

    def _no_room(self, model: str) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"{self._service}: no room for {model}: all {self._limit} models in memory are in use "
            f"or pinned. Try again later, or raise the setting 'residency.max_models'.",
            details={"service": self._service, "model": model, "loaded": list(self.loaded)},
        )

    def _residents(self, but: _Entry | None = None) -> list[policy.Resident]:
        return [
            self._resident(each)
            for each in self._entries.values()
            if each is not but and each.state is _State.READY
        ]

    def _resident(self, entry: _Entry) -> policy.Resident:
        return policy.Resident(
            model=entry.model,
            busy=entry.busy,
            last_used=entry.last_used,
            pinned=entry.model in self._pinned,
        )

    def _begin_unload(self, entry: _Entry, unload: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        entry.task = task = asyncio.create_task(unload, name=f"unload {entry.model}")
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _unload_in_turn(self, entry: _Entry, reason: str) -> None:
        """Unload once no load is under way; it counts as loaded, and can be used, until then."""
        try:
            async with self._one_at_a_time:
                if self._entries.get(entry.model) is not entry:
                    return
                if entry.busy:
                    raise self._in_use(entry)
                await self._run_unload(entry, reason)
        finally:
            entry.task = None

    async def _run_unload(self, entry: _Entry, reason: str) -> None:
        entry.state = _State.UNLOADING
        try:
            await self._unload(entry.model)
        finally:
            # Whatever went wrong, it must be loaded anew before it is used again.
            if self._forget(entry):
                self._changed(entry.model, reason)
            self._released.set()  # there is room now for a load that waits

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
            for model in policy.expired(self._idle(), now(), self._idle_timeout):
                entry = self._entries.get(model)
                if entry is not None and entry.task is None and not entry.busy:
                    unload = self._unload_in_turn(entry, "idle")
                    await asyncio.wait({self._begin_unload(entry, unload)})
            self._released.clear()
            wait = policy.next_expiry(self._idle(), now(), self._idle_timeout)
            try:
                async with asyncio.timeout(wait if wait is not None else self._idle_timeout):
                    await self._released.wait()
            except TimeoutError:
                continue

    def _idle(self) -> list[policy.Resident]:
        """The models that may expire: not those whose unloading waits for its turn."""
        return [each for each in self._residents() if self._entries[each.model].task is None]
