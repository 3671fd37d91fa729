"""Over and over: no task, descriptor, thread or child is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.fakes import Fake, Served, ask, kernel, nothing_leaks, question

from aiplayground.kernel import Kernel


async def cycles(k: Kernel, service: str, count: int) -> None:
    for number in range(count):
        if number % 10 == 0:
            await ask(k)
        else:
            await k.start(service)
        await k.stop(service)


async def test_a_thousand_starts_and_stops_leak_nothing(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as k:
        await cycles(k, "fake", 2)
        with nothing_leaks():
            await cycles(k, "fake", 1000)


@pytest.mark.parametrize(
    "count", [10, pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
async def test_starts_and_stops_of_a_process_leak_nothing(tmp_path: Path, count: int) -> None:
    async with kernel(tmp_path, Served()) as k:
        await cycles(k, "served", 2)
        await idle(k)
        with nothing_leaks():
            await cycles(k, "served", count)
            await idle(k)


async def idle(k: Kernel) -> None:
    """Close connections that the client would keep for the next request."""
    await k._http.renew()


async def test_starts_that_are_pre_empted_leak_nothing(tmp_path: Path) -> None:
    async with kernel(tmp_path, Served("hold")) as k:

        async def cycle(steps: int) -> None:
            starting = asyncio.ensure_future(k.start("served"))
            for _ in range(steps):
                await asyncio.sleep(0)
            await k.stop("served")
            await asyncio.wait({starting})
            assert starting.exception() is not None

        await cycle(20)
        await idle(k)
        with nothing_leaks():
            for steps in range(1, 13):
                await cycle(steps)
            await idle(k)


async def test_answers_that_are_thrown_away_leak_nothing(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        await ask(k)
        with nothing_leaks():
            for _ in range(100):
                answer = k.chat(question())
                await anext(answer)
                await answer.aclose()
        assert len(k._services["fake"].streams) == 0
        assert k._services["fake"].ops.residency.busy("m") == 0


async def test_fifty_kernels_one_after_the_other_leak_nothing(tmp_path: Path) -> None:
    async def once() -> None:
        async with kernel(tmp_path, Fake()) as k:
            await ask(k)

    await once()
    with nothing_leaks():
        for _ in range(50):
            await once()
