"""Loads that must fit: refused, made room for, and never two into the same memory."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import QUICK, Fake, Served, kernel, spawned, status

from aiplayground.admission._measure import Reading
from aiplayground.context import ServiceContext
from aiplayground.errors import FailureClass, NotEnoughMemory
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Capability, MemoryEstimate, Saving

MIB = 2**20
NO_MARGIN: dict[str, Any] = {"residency": {"memory_margin": 0, "max_models": 9}}


class Sized(Fake):
    """A backend whose models take what the test says, in MiB, of a memory of the test's own."""

    def __init__(self, name: str, sizes: dict[str, int], memory: Memory) -> None:
        super().__init__(name, models=list(sizes))
        self.sizes, self.memory = sizes, memory
        self.cache = 0

    @hookimpl
    async def estimate_memory(self, ctx: ServiceContext, model: str) -> MemoryEstimate:
        size = self.sizes[model] * MIB
        return MemoryEstimate(weights=size, savings=(Saving("Set context_size to 512", size),))

    @hookimpl
    async def load_model(self, model: str) -> None:
        self.calls.append(f"load {model}")
        if self.loading is not None:
            await self.loading.wait()
        self.memory.used += self.sizes[model]
        self.memory.most = max(self.memory.most, self.memory.used)

    @hookimpl
    async def unload_model(self, model: str) -> None:
        self.calls.append(f"unload {model}")
        self.memory.used -= self.sizes[model]

    @hookimpl
    async def release_memory(self, ctx: ServiceContext, model: str, wanted: int) -> int:
        if not wanted:
            return self.cache * MIB
        self.calls.append(f"release {model}")
        given, self.cache = self.cache, 0
        self.memory.used -= given
        return given * MIB


class Memory:
    """A memory of so many MiB."""

    def __init__(self, size: int) -> None:
        self.size, self.used, self.most = size, 0, 0

    def probe(self, pids: Collection[int]) -> Reading:
        return Reading((self.size - self.used) * MIB)


@pytest.fixture
def memory() -> Memory:
    return Memory(100)


@pytest.fixture
def backend(memory: Memory) -> Sized:
    return Sized("fake", {"a": 40, "b": 40, "c": 60, "huge": 500}, memory)


@pytest.fixture
async def running(tmp_path: Path, backend: Sized, memory: Memory) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, backend, settings=NO_MARGIN) as one:
        one._host.admission.probe = memory.probe
        yield one


async def test_a_refusal_has_figures_and_what_to_change(running: Kernel, backend: Sized) -> None:
    with pytest.raises(NotEnoughMemory, match=r"huge needs 500 MiB.*only 100 MiB") as refused:
        await running.ensure_ready("fake", "huge")
    details = refused.value.details
    assert refused.value.code == -1
    assert details["reason"] == "not-enough-memory"
    assert details["needs"]["main memory"] == 500 * MIB
    assert details["free"]["main memory"] == 100 * MIB
    assert any("context_size" in each for each in details["change"])
    # Nothing was started for it, and nothing is kept: what fits is loaded.
    assert "start" not in backend.calls
    await running.ensure_ready("fake", "a")
    with pytest.raises(NotEnoughMemory):
        await running.ensure_ready("fake", "huge")
    assert running.service("fake").models == ("a",)


async def test_who_was_used_longest_ago_makes_room(running: Kernel, backend: Sized) -> None:
    for model in ("a", "b", "a"):
        await running.ensure_ready("fake", model)
    plan = await running.plan("c")
    assert plan.outcome == "unload-first"
    assert [(each.service, each.model) for each in plan.unload] == [("fake", "b")]
    assert "b would be unloaded" in plan.message
    assert running.service("fake").models == ("a", "b")  # a plan changes nothing
    await running.ensure_ready("fake", "c")
    assert running.service("fake").models == ("a", "c")


async def test_pinned_models_stay_and_are_named(running: Kernel, backend: Sized) -> None:
    await running.ensure_ready("fake", "a")
    await running.ensure_ready("fake", "b")
    running.pin("fake", "a")
    running.pin("fake", "b")
    with pytest.raises(NotEnoughMemory) as refused:
        await running.ensure_ready("fake", "c")
    assert any(each.startswith("Unpin fake/a") for each in refused.value.details["change"])
    assert running.service("fake").models == ("a", "b")


async def test_two_loads_do_not_count_the_same_memory(running: Kernel, backend: Sized) -> None:
    await running.start("fake")
    backend.loading = asyncio.Event()
    first = asyncio.ensure_future(running.ensure_ready("fake", "a"))
    while "load a" not in backend.calls:
        await asyncio.sleep(0)
    # Not taken yet, but promised: for `c` there are 60 left, and none for `b` beside it.
    assert (await running.plan("c")).free["main memory"] == 60 * MIB
    rest = [asyncio.ensure_future(running.ensure_ready("fake", each)) for each in ("b", "c")]
    backend.loading.set()
    await asyncio.gather(first, *rest)
    assert backend.memory.most <= 100


async def test_caches_are_given_back_before_anybody_goes(running: Kernel, backend: Sized) -> None:
    await running.ensure_ready("fake", "a")
    backend.cache = 30
    backend.memory.used += 30
    plan = await running.plan("b")
    assert plan.outcome == "load"
    assert "caches of loaded models would be given back" in plan.message
    assert "release a" not in backend.calls
    await running.ensure_ready("fake", "b")
    assert "release a" in backend.calls
    assert running.service("fake").models == ("a", "b")


async def test_a_load_waits_for_what_is_in_use(running: Kernel, backend: Sized) -> None:
    await running.start("fake")
    async with running._find("fake").ops.residency.use("c"):
        plan = await running.plan("a")
        assert plan.outcome == "load"
        assert (await running.plan("b")).outcome == "load"
        await running.ensure_ready("fake", "a")
        running.pin("fake", "a")
        assert (await running.plan("b")).wait_for == ("fake/c",)
        late = asyncio.ensure_future(running.ensure_ready("fake", "b"))
        await asyncio.sleep(0.05)
        assert not late.done()
    await late
    assert running.service("fake").models == ("a", "b")


@pytest.mark.parametrize(("check", "loaded"), [("warn", True), ("off", True), ("refuse", False)])
async def test_what_the_check_does_is_a_setting(
    tmp_path: Path, backend: Sized, memory: Memory, check: str, loaded: bool
) -> None:
    settings = {"residency": {"memory_check": check, "memory_margin": 0}}
    async with kernel(tmp_path, backend, settings=settings) as one:
        one._host.admission.probe = memory.probe
        if loaded:
            await one.ensure_ready("fake", "huge")
        else:
            with pytest.raises(NotEnoughMemory):
                await one.ensure_ready("fake", "huge")
        assert (one.service("fake").models == ("huge",)) == loaded


async def test_a_model_of_another_backend_makes_room(tmp_path: Path, memory: Memory) -> None:
    one, other = Sized("one", {"a": 60}, memory), Sized("other", {"b": 60}, memory)
    async with kernel(tmp_path, one, other, settings=NO_MARGIN) as both:
        both._host.admission.probe = memory.probe
        await both.ensure_ready("one", "a")
        await both.ensure_ready("other", "b")
        assert both.service("one").models == ()
        assert both.service("other").models == ("b",)
        assert memory.most <= 100


async def test_the_limit_of_the_settings_holds(
    tmp_path: Path, backend: Sized, memory: Memory
) -> None:
    settings = {"residency": {"memory_limit": 50, "memory_margin": 0}}
    async with kernel(tmp_path, backend, settings=settings) as one:
        one._host.admission.probe = memory.probe
        await one.ensure_ready("fake", "a")
        await one.ensure_ready("fake", "b")
        assert one.service("fake").models == ("b",)
        with pytest.raises(NotEnoughMemory, match="memory_limit"):
            await one.ensure_ready("fake", "c")
        answer = await one.call("explainReadiness", "fake", "c")
        assert answer["outcome"] == "refuse"
        assert answer["needs"]["residency.memory_limit"] == 60 * MIB


class Comes(Served):
    """A backend whose worker is a process that comes up with a model, the first if none is named.

    Each model takes 60 MiB.
    """

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.spec_of("main", model=ctx.model or self.models[0]))

    @hookimpl
    async def estimate_memory(self, ctx: ServiceContext, model: str) -> MemoryEstimate:
        return MemoryEstimate(weights=60 * MIB)


async def test_a_start_that_names_no_model_is_asked_about_too(
    tmp_path: Path, memory: Memory
) -> None:
    count = tmp_path / "count"
    async with kernel(tmp_path, Comes(f"count={count}"), settings=NO_MARGIN) as one:
        one._host.admission.probe = memory.probe
        memory.used = 50
        with pytest.raises(NotEnoughMemory, match="m needs 60 MiB"):
            await one.start("served")
        assert spawned(count) == []
        memory.used = 0  # and nothing is kept of what was refused
        await one.start("served")
        assert one.service("served").models == ("m",)


async def test_a_worker_that_crashed_comes_back_only_where_it_fits(
    tmp_path: Path, memory: Memory
) -> None:
    count = tmp_path / "count"
    settings = {**QUICK, **NO_MARGIN}
    async with kernel(tmp_path, Comes(f"count={count}"), settings=settings) as one:
        one._host.admission.probe = memory.probe
        await one.start("served")
        memory.used = 50
        os.kill(spawned(count)[0], signal.SIGKILL)
        await status(one, "served", "failed", runtime=True)
        error = one.service("served").error
        assert error is not None
        assert "m needs 60 MiB" in error["message"]
        assert error["details"]["failure"] == FailureClass.OUT_OF_MEMORY
        assert len(spawned(count)) == 1
        memory.used = 0
        await one.start("served")
        assert len(spawned(count)) == 2


async def test_a_request_that_goes_to_the_worker_fails_no_service(
    tmp_path: Path, memory: Memory
) -> None:
    async with kernel(tmp_path, Comes(), settings=NO_MARGIN) as one:
        one._host.admission.probe = memory.probe
        memory.used = 50
        model = await one.find_model("m")
        with pytest.raises(NotEnoughMemory):
            async with one.lease(model, Capability.CHAT):
                raise AssertionError("there is nothing to hold")
        assert one.service("served").runtime == "stopped"
        assert one.service("served").error is None
