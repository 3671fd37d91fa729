"""The virtual clock: waits jump, in order, and the kernel's own deadlines go by it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from aiplayground.errors import ServiceFailed
from aiplayground.events import ModelUnloaded
from aiplayground.policy import Liveness
from aiplayground.testing import VirtualLoop, virtual_time
from tests.fakes import Fake, ask, kernel, until

HOUR = 3600.0


@virtual_time
async def test_waits_end_in_the_order_of_their_length() -> None:
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(wait(hours * HOUR) for hours in (3, 1, 2)))
    assert ended == [pytest.approx(hours * HOUR) for hours in (1, 2, 3)]


@virtual_time
async def test_a_deadline_passes_at_once() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(HOUR):
            await asyncio.Event().wait()


@virtual_time
async def test_time_stands_still_while_a_thread_works() -> None:
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.05)


@virtual_time
async def test_the_wall_clock_moves_along_and_can_be_moved_alone() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    before = loop.wall_time()
    await asyncio.sleep(HOUR)
    assert loop.wall_time() - before == pytest.approx(HOUR)
    loop.sleep_machine(HOUR)
    assert loop.wall_time() - before == pytest.approx(2 * HOUR)
    assert loop.time() == pytest.approx(HOUR)


@virtual_time
async def test_an_idle_model_is_unloaded_after_ten_minutes(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as k:
        await ask(k)
        events = k.subscribe(ModelUnloaded, snapshot=False)
        await asyncio.sleep(599)
        assert k.service("fake").models == ("m",)
        await asyncio.sleep(2)
        event = await until(events, ModelUnloaded)
        assert isinstance(event, ModelUnloaded)
        assert event.reason == "idle"


@virtual_time
async def test_an_engine_that_sends_nothing_for_ten_minutes_is_given_up(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        began = asyncio.get_running_loop().time()
        with pytest.raises(ServiceFailed, match="sent nothing for 600 s"):
            await ask(k)
        assert asyncio.get_running_loop().time() - began == pytest.approx(600)


def test_a_decorated_test_takes_its_fixtures() -> None:
    @virtual_time
    async def sleeps(count: int) -> int:
        await asyncio.sleep(HOUR)
        return count

    assert sleeps(3) == 3
    assert not asyncio.iscoroutinefunction(sleeps)


def test_a_sleep_of_the_machine_is_no_hang() -> None:
    liveness = Liveness(limit=30)
    assert not liveness.observe(now=0, wall=0, ok=False, cpu=0, lines=0)
    assert not liveness.observe(now=20, wall=20 + HOUR, ok=False, cpu=0, lines=0)
    assert not liveness.observe(now=40, wall=40 + HOUR, ok=False, cpu=0, lines=0)
