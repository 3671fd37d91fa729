"""Who was promised how much memory: one table for all services of a kernel.

The table is written on the event loop alone, and between a decision and its entry nothing is
awaited. Whoever comes later sees what was promised before, measured or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiplayground._clock import now
from aiplayground.errors import AIPlaygroundError
from aiplayground.specs import MemoryEstimate

from ._decide import Decision, Evict, Load, Release, Wait, decide
from ._measure import (
    MIB,
    Held,
    Key,
    Probe,
    Reading,
    free_for,
    holders_of,
    measure,
    needs_of,
    take,
    without_caches,
)
from ._plan import CACHES, LoadPlan, make_plan, refusal

if TYPE_CHECKING:
    import logging

    from aiplayground._service import Service
    from aiplayground.settings import KernelSettings

POLL = 0.25
"""Seconds between looks whether there is room by now."""

RECOVERY = 2.0
"""Seconds after an unload in which its memory may come back."""

SPARE_WAIT = 2.0
"""Seconds in which a backend says what a model could do without."""

Fallback = Callable[[str, str], Awaitable[MemoryEstimate | None]]
"""Estimates a model of a backend that does not itself."""


class Admission:
    """Lets models into memory. `services` are the kernel's, which fills the mapping later."""

    def __init__(
        self,
        services: Mapping[str, Service],
        settings: KernelSettings,
        fallback: Fallback,
        logger: logging.Logger,
        probe: Probe = measure,
    ) -> None:
        self._services = services
        self._rules = settings.residency
        self._patience = settings.timeouts.load
        self._fallback = fallback
        self._logger = logger
        self._promised: dict[Key, MemoryEstimate | None] = {}
        self._known: dict[Key, MemoryEstimate | None] = {}
        self.probe = probe

    # The table ----------------------------------------------------------------------------

    async def admit(self, service: str, model: str) -> bool:
        """Promise memory to a load, making room first; False if it was promised already.

        The promise holds until `forget`. Raises `NotEnoughMemory`.
        """
        key = (service, model)
        if self._rules.memory_check == "off" or key in self._promised:
            return False
        deadline, recovered, asked = now() + self._patience, 0.0, set[Key]()
        while True:
            estimate = await self._estimate(key)
            reading = await self._read()
            decision, plan = self._look(key, estimate, reading, asked)
            # From here to the promise nothing is awaited.
            if isinstance(decision, Load) or key in self._promised:
                return self._promise(key, estimate)
            if isinstance(decision, Release):
                await self._release(decision, asked)
            elif isinstance(decision, Evict):
                await self._evict(key, decision)
                recovered = now() + RECOVERY
            elif now() < (deadline if isinstance(decision, Wait) else recovered):
                await asyncio.sleep(POLL)
            elif self._refused(plan):
                raise refusal(plan)
            else:
                return self._promise(key, estimate)

    @asynccontextmanager
    async def claim(self, service: str, model: str | None) -> AsyncIterator[None]:
        """Have memory promised to a worker that comes up with a model, unless that fails.

        It may have been promised to whoever has the worker launched. Raises `NotEnoughMemory`.
        """
        fresh = model is not None and await self.admit(service, model)
        try:
            yield
        except BaseException:
            if fresh and model is not None:
                self.forget(service, model)
            raise

    async def check(self, service: str, model: str) -> None:
        """Raise `NotEnoughMemory` if a load would be refused now; promises nothing."""
        if self._rules.memory_check == "refuse" and (service, model) not in self._promised:
            plan = await self.plan(service, model)
            if not plan.fits:
                raise refusal(plan)

    async def plan(self, service: str, model: str) -> LoadPlan:
        """Say what a load would do now; changes nothing."""
        key = (service, model)
        estimate = await self._estimate(key)
        if model in self._services[service].ops.residency.loaded:
            said = f"{model} is loaded."
            return LoadPlan(
                service=service, model=model, outcome="loaded", estimate=estimate, message=said
            )
        reading = await self._read()
        decision, plan = self._look(key, estimate, reading, set())
        if not isinstance(decision, Release):
            return plan
        decision, later = self._look(key, estimate, reading, None)
        if isinstance(decision, Load):
            return plan
        return replace(later, message=f"{later.message} {CACHES}")

    def forget(self, service: str, model: str) -> None:
        """Take a promise back: the model is gone, or was never loaded."""
        self._promised.pop((service, model), None)

    def _promise(self, key: Key, estimate: MemoryEstimate | None) -> bool:
        fresh = key not in self._promised
        self._promised[key] = self._known[key] = estimate
        return fresh

    # Decisions ----------------------------------------------------------------------------

    def _look(
        self, key: Key, estimate: MemoryEstimate | None, reading: Reading, asked: set[Key] | None
    ) -> tuple[Decision, LoadPlan]:
        """Decide by what is known now.

        `asked` were asked for their caches already; None: as if all had given them back.
        """
        service, model = key
        if estimate is None or self._rules.memory_check == "off":
            said = f"What {model} needs is not checked."
            plan = LoadPlan(
                service=service, model=model, outcome="unchecked", estimate=estimate, message=said
            )
            return Load(), plan
        held = self._held(key, asked or set(), reading)
        if asked is None:
            held, reading = without_caches(held, reading)
        holders = holders_of(held, reading)
        needs, limit = needs_of(estimate), self._rules.memory_limit
        free = free_for(
            estimate,
            reading,
            held,
            margin=self._rules.memory_margin * MIB,
            limit=None if limit is None else limit * MIB,
        )
        decision = decide(needs, free, holders)
        leaving = [each for each in holders if each.leaving]
        return decision, make_plan(key, estimate, needs, free, decision, leaving)

    def _held(self, key: Key, asked: set[Key], reading: Reading) -> list[Held]:
        """List everything that has memory, or was promised some, but for the model itself."""
        leaving = {(key[0], each) for each in self._services[key[0]].ops.residency.leaving(key[1])}
        found: dict[Key, Held] = {}
        for name, service in self._services.items():
            for each, moving in service.ops.residency.residents():
                own = (name, each.model)
                found[own] = Held(
                    key=own,
                    estimate=self._promised.get(own, self._known.get(own)),
                    pid=_pid(service, each.model),
                    moving=moving or own not in reading.settled,
                    busy=each.busy,
                    last_used=each.last_used,
                    pinned=each.pinned,
                    leaving=own in leaving,
                    soft=own not in asked and bool(reading.spare.get(own)),
                    spare=reading.spare.get(own, 0),
                )
        for own, estimate in self._promised.items():
            pid = _pid(self._services[own[0]], own[1])
            found.setdefault(own, Held(key=own, estimate=estimate, pid=pid, moving=True))
        return [each for own, each in found.items() if own != key and self._counts(own, each)]

    def _counts(self, key: Key, held: Held) -> bool:
        """Leave out loads that wait for a promise themselves, and what runs elsewhere."""
        if self._services[key[0]].attachment is not None:
            return False
        return key in self._promised or not held.moving

    def _refused(self, plan: LoadPlan) -> bool:
        if self._rules.memory_check == "refuse":
            return True
        self._logger.warning("%s Loaded all the same.", plan.message)
        return False

    # Effects ------------------------------------------------------------------------------

    async def _read(self) -> Reading:
        pids = {
            worker.pid
            for service in self._services.values()
            for worker in service.pool.workers.values()
            if worker.pid is not None
        }
        loaded = {
            (name, each.model)
            for name, service in self._services.items()
            for each, moving in service.ops.residency.residents()
            if not moving
        }
        keep = [key for key in loaded if self._services[key[0]].ops.find("release_memory")]
        # Before the rest is measured: what is kept later is taken for part of a promise, not lost.
        spare = dict(zip(keep, await asyncio.gather(*map(self._spare, keep)), strict=True))
        reading = await take(self.probe, pids)
        return replace(reading, settled=frozenset(loaded), spare=spare)

    async def _spare(self, key: Key) -> int:
        """Ask what a model could do without; one that does not say has nothing."""
        try:
            async with asyncio.timeout(SPARE_WAIT):
                return await self._services[key[0]].ops.release(key[1], 0)
        except (AIPlaygroundError, TimeoutError) as error:
            self._logger.info("%s does not say what it keeps: %s", key[1], error)
            return 0

    async def _estimate(self, key: Key) -> MemoryEstimate | None:
        """Ask the backend, else go by the files; what fails there must not keep a model out."""
        service, model = key
        ops = self._services[service].ops
        if self._services[service].attachment is not None:
            return None
        try:
            if ops.find("estimate_memory") is not None:
                return await ops.estimate(model)
            return await self._fallback(service, model)
        except AIPlaygroundError as error:
            self._logger.warning("%s: no estimate for %s: %s", service, model, error.message)
            return None

    async def _release(self, decision: Release, asked: set[Key]) -> None:
        wanted = max(decision.short.values())
        for each in decision.holders:
            asked.add((each.service, each.model))
        for each in decision.holders:
            if wanted <= 0:
                return
            try:
                given = await self._services[each.service].ops.release(each.model, wanted)
            except AIPlaygroundError as error:
                self._logger.warning("%s keeps its memory: %s", each.model, error.message)
                continue
            self._logger.info("%s gave back %d bytes", each.model, given)
            wanted -= given

    async def _evict(self, key: Key, decision: Evict) -> None:
        for each in decision.holders:
            self._logger.info("%s/%s makes room for %s/%s", each.service, each.model, *key)
            try:
                await self._services[each.service].ops.residency.release(each.model, "evicted")
            except AIPlaygroundError as error:
                # Somebody uses it again: the next look takes that into account.
                self._logger.info("%s stays: %s", each.model, error.message)
                await asyncio.sleep(POLL)
                return


def _pid(service: Service, model: str) -> int | None:
    """Return the process that holds a model, if it is known to hold this one alone."""
    workers: Any = service.pool.workers.values()
    return next((each.pid for each in workers if model in (each.model, each.spec.model)), None)
