"""Which models are in memory: one load for all who wait, room made from what nobody uses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.fakes import PATIENCE

from aiplayground._residency import Residency
from aiplayground.errors import InvalidModelFile, ServiceNotAvailable


class Engine:
    """Loads and unloads when it is let; notes what happened and what overlapped."""

    def __init__(self, limit: int = 2, idle: float = 0, patience: float = PATIENCE) -> None:
        self.calls: list[str] = []
        self.events: list[str] = []
        self.memory: set[str] = set()
        self.most = 0
        self.under_way = 0
        self.overlapped = False
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.limit = limit
        self.residency = Residency(
            "svc",
            load=self.load,
            unload=self.unload,
            changed=lambda model, why: self.events.append(f"{model} {why or 'loaded'}"),
            limit=limit,
            idle_timeout=idle,
            patience=patience,
        )

    async def load(self, model: str) -> None:
        await self.work(f"load {model}")
        self.memory.add(model)
        self.most = max(self.most, len(self.memory))

    async def unload(self, model: str) -> None:
        await self.work(f"unload {model}")
        self.memory.discard(model)

    async def work(self, what: str) -> None:
        self.calls.append(what)
        self.overlapped |= self.under_way > 0
        self.under_way += 1
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.under_way -= 1

    async def hold(self, model: str) -> Holder:
        holder = Holder(self.residency, model)
        await holder.held.wait()
        return holder


class Holder:
    """A job that uses a model until it is told to end."""

    def __init__(self, residency: Residency, model: str) -> None:
        self.held, self.end = asyncio.Event(), asyncio.Event()
        self.task = asyncio.ensure_future(self.run(residency, model))

    async def run(self, residency: Residency, model: str) -> None:
        async with residency.use(model):
            self.held.set()
            await self.end.wait()

    async def done(self) -> None:
        self.end.set()
        await self.task


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine()
    yield made
    await made.residency.clear("stopped")


async def ticks(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_hundred_users_cause_one_load(engine: Engine) -> None:
    await asyncio.gather(*(engine.residency.ensure("a") for _ in range(100)))
    assert engine.calls == ["load a"]
    assert engine.residency.loaded == ("a",)
    assert engine.residency.busy("a") == 0
    assert engine.events == ["a loaded"]


async def test_a_failure_reaches_all_who_wait_and_the_next_one_tries_again(engine: Engine) -> None:
    engine.error = InvalidModelFile("damaged")
    results = await asyncio.gather(
        *(engine.residency.ensure("a") for _ in range(100)), return_exceptions=True
    )
    assert {type(each) for each in results} == {InvalidModelFile}
    assert engine.calls == ["load a"]
    assert engine.residency.loaded == ()
    engine.error = None
    await engine.residency.ensure("a")
    assert engine.calls == ["load a", "load a"]


async def test_a_load_goes_on_when_its_first_caller_goes_away(engine: Engine) -> None:
    engine.gate = asyncio.Event()
    first = asyncio.ensure_future(engine.residency.ensure("a"))
    await ticks()
    second = asyncio.ensure_future(engine.residency.ensure("a"))
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    engine.gate.set()
    await second
    assert engine.calls == ["load a"]
    assert engine.residency.busy("a") == 0


async def test_a_load_that_nobody_waits_for_any_more_completes(engine: Engine) -> None:
    engine.gate = asyncio.Event()
    only = asyncio.ensure_future(engine.residency.ensure("a"))
    await ticks()
    only.cancel()
    await asyncio.wait({only})
    engine.gate.set()
    await ticks()
    assert engine.residency.loaded == ("a",)


async def test_the_least_recently_used_makes_room(engine: Engine) -> None:
    for model in ("a", "b", "a", "c"):
        await engine.residency.ensure(model)
    assert engine.residency.loaded == ("a", "c")
    assert engine.calls == ["load a", "load b", "unload b", "load c"]
    assert engine.events[-2:] == ["b evicted", "c loaded"]


async def test_what_is_busy_stays_and_the_other_goes(engine: Engine) -> None:
    holder = await engine.hold("a")
    await engine.residency.ensure("b")
    await engine.residency.ensure("c")
    assert set(engine.residency.loaded) == {"a", "c"}
    await holder.done()


async def test_pins_hold_until_they_are_taken_away(engine: Engine) -> None:
    for model in ("a", "b"):
        await engine.residency.ensure(model)
        engine.residency.pin(model)
    waiting = asyncio.ensure_future(engine.residency.ensure("c"))
    await ticks()
    assert engine.residency.loaded == ("a", "b")
    engine.residency.pin("a", False)
    await waiting
    assert engine.residency.loaded == ("b", "c")


async def test_a_load_waits_for_room(engine: Engine) -> None:
    holders = [await engine.hold(model) for model in ("a", "b")]
    waiting = asyncio.ensure_future(engine.residency.ensure("c"))
    await ticks()
    assert engine.calls == ["load a", "load b"]
    await holders[1].done()
    await waiting
    assert engine.calls[2:] == ["unload b", "load c"]
    await holders[0].done()


async def test_without_room_it_says_so_in_the_end() -> None:
    engine = Engine(limit=1, patience=0.05)
    holder = await engine.hold("a")
    with pytest.raises(ServiceNotAvailable, match=r"no room for c.*residency.max_models") as caught:
        await engine.residency.ensure("c")
    assert caught.value.details["loaded"] == ["a"]
    await holder.done()
    await engine.residency.ensure("c")
    assert engine.residency.loaded == ("c",)


async def test_who_waits_for_room_keeps_nobody_from_being_unloaded(engine: Engine) -> None:
    holder = await engine.hold("a")
    await engine.residency.ensure("b")
    engine.residency.pin("b")
    waiting = asyncio.ensure_future(engine.residency.ensure("c"))
    await ticks()
    await engine.residency.release("b")
    await waiting
    assert engine.memory == {"a", "c"}
    assert engine.most == 2
    await holder.done()


async def test_two_models_in_one_place_take_turns(engine: Engine) -> None:
    engine = Engine(limit=1)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(engine.residency.ensure(each) for each in "abab"))
    assert engine.calls.count("load a") + engine.calls.count("load b") <= 3, "they do not thrash"
    assert engine.most == 1


async def test_a_busy_model_is_not_released_and_an_idle_one_is(engine: Engine) -> None:
    holder = await engine.hold("a")
    with pytest.raises(ServiceNotAvailable, match=r"a is in use by 1 request\(s\)"):
        await engine.residency.release("a")
    await holder.done()
    await asyncio.gather(*(engine.residency.release("a") for _ in range(5)))
    assert engine.calls == ["load a", "unload a"]
    assert engine.events == ["a loaded", "a asked"]
    await engine.residency.release("a")
    await engine.residency.release("never-heard-of")


async def test_an_unload_that_fails_is_told_and_the_model_loads_anew(engine: Engine) -> None:
    await engine.residency.ensure("a")
    engine.error = RuntimeError("stuck")
    with pytest.raises(RuntimeError, match="stuck"):
        await engine.residency.release("a")
    engine.error = None
    await engine.residency.ensure("a")
    assert engine.calls == ["load a", "unload a", "load a"]


async def test_a_request_during_an_unload_that_fails_is_not_told_of_it(engine: Engine) -> None:
    await engine.residency.ensure("a")
    engine.gate = asyncio.Event()
    releasing = asyncio.ensure_future(engine.residency.release("a"))
    await ticks()
    asking = asyncio.ensure_future(engine.residency.ensure("a"))
    await ticks()
    engine.error = RuntimeError("stuck")
    engine.gate.set()
    with pytest.raises(RuntimeError):
        await releasing
    engine.error = None
    await asking
    assert engine.residency.loaded == ("a",)


async def test_a_model_that_was_asked_away_but_is_used_meanwhile_stays(engine: Engine) -> None:
    await engine.residency.ensure("a")
    engine.gate = asyncio.Event()
    loading = asyncio.ensure_future(engine.residency.ensure("b"))
    await ticks()
    releasing = asyncio.ensure_future(engine.residency.release("a"))
    await ticks()
    holder = await engine.hold("a")
    engine.gate.set()
    with pytest.raises(ServiceNotAvailable, match="in use"):
        await releasing
    await loading
    assert "unload a" not in engine.calls
    await holder.done()


async def test_idle_models_go_and_used_or_pinned_ones_stay() -> None:
    engine = Engine(limit=4, idle=0.05)
    holder = await engine.hold("busy")
    for model in ("idle", "pinned"):
        await engine.residency.ensure(model)
    engine.residency.pin("pinned")
    async with asyncio.timeout(PATIENCE):
        while "idle" in engine.residency.loaded:
            await asyncio.sleep(0.01)
    assert set(engine.residency.loaded) == {"busy", "pinned"}
    assert "idle idle" in engine.events
    await holder.done()
    engine.residency.pin("pinned", False)
    async with asyncio.timeout(PATIENCE):
        while engine.residency.loaded:
            await asyncio.sleep(0.01)
    await engine.residency.clear("stopped")


async def test_a_model_that_came_with_its_worker_is_adopted_once(engine: Engine) -> None:
    engine.residency.adopt("a")
    engine.residency.adopt("a")
    await engine.residency.ensure("a")
    assert (engine.calls, engine.events) == ([], ["a loaded"])


async def test_a_crash_while_busy_forgets_the_model_and_the_next_one_loads_it(
    engine: Engine,
) -> None:
    holder = await engine.hold("a")
    engine.residency.drop(["a", "unknown"], "crashed")
    assert engine.residency.loaded == ()
    await engine.residency.ensure("a")
    await holder.done()
    assert engine.events == ["a loaded", "a crashed", "a loaded"]
    assert engine.residency.busy("a") == 0


async def test_a_crash_does_not_forget_what_is_being_loaded(engine: Engine) -> None:
    engine.gate = asyncio.Event()
    loading = asyncio.ensure_future(engine.residency.ensure("a"))
    await ticks()
    engine.residency.drop(["a"], "crashed")
    engine.gate.set()
    await loading
    assert engine.calls == ["load a"]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stop_ends_loads_with_an_error_and_not_with_a_cancellation(
    engine: Engine, begun: bool
) -> None:
    await engine.residency.ensure("there")
    engine.gate = asyncio.Event()
    asking = [asyncio.ensure_future(engine.residency.ensure("a")) for _ in range(3)]
    await ticks(10 if begun else 1)
    await engine.residency.clear("stopped")
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(each) for each in results} == {ServiceNotAvailable}
    assert engine.residency.loaded == ()
    assert engine.events == ["there loaded", "there stopped"]


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_the_limit_holds_and_nothing_overlaps(seed: int) -> None:
    luck = random.Random(seed)
    engine = Engine(limit=luck.choice([1, 2, 3]))

    async def job() -> None:
        model = luck.choice("abcde")
        async with engine.residency.use(model):
            assert model in engine.memory
            await ticks(luck.randrange(6))
            assert model in engine.memory, "a model that is used was unloaded"

    async def nuisance() -> Any:
        await ticks(luck.randrange(40))
        return await engine.residency.release(luck.choice("abcde"))

    async with asyncio.timeout(PATIENCE):
        work = [job() if luck.random() < 0.8 else nuisance() for _ in range(200)]
        results = await asyncio.gather(*work, return_exceptions=True)
    assert {type(each) for each in results} <= {type(None), ServiceNotAvailable}
    assert sum(each is not None for each in results) < 60
    assert engine.most <= engine.limit
    assert not engine.overlapped
    assert set(engine.residency.loaded) == engine.memory
    assert all(engine.residency.busy(model) == 0 for model in "abcde")
    await engine.residency.clear("stopped")
