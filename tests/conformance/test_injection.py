"""Faults from a seed, the gate that breaks answers, and a kernel whose workers can be hurt."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiplayground.errors import ServiceFailed
from aiplayground.testing import Fault, FaultKind, FaultPlan, FaultyKernel
from aiplayground.testing.gate import Gate
from tests.conformance.reference import Reference
from tests.fakes import QUICK, alive, ask, eventually, nothing_leaks

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
BODY = bytes(range(256)) * 8
POST = b"POST / HTTP/1.1\r\n\r\n"


def test_a_plan_draws_the_same_from_the_same_seed() -> None:
    assert FaultPlan(7).draw(50) == FaultPlan(7).draw(50)
    assert FaultPlan(7).draw(50) != FaultPlan(8).draw(50)
    assert {fault.kind for fault in FaultPlan(1).draw(200)} == set(FaultKind)
    some = FaultPlan(3, kinds=[FaultKind.CUT, FaultKind.KILL]).draw(20)
    assert {fault.kind for fault in some} == {FaultKind.CUT, FaultKind.KILL}
    assert repr(FaultPlan(7)).startswith("FaultPlan(seed=7")
    places = FaultPlan(5).positions(1000, 6)
    assert places == sorted(places)
    assert (places[0], len(places)) == (0, 6)
    assert 0 <= FaultPlan(5).pause(0.1) <= 0.1


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """A gate in front of a server that answers every request with `BODY` and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(BODY)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    gate = Gate()
    gate.listen()
    gate.target = server.sockets[0].getsockname()[1]
    yield gate
    await gate.close()
    server.close()


async def asked(gate: Gate, request: bytes = POST) -> tuple[bytes, bool]:
    """Return what arrives, and whether the connection was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    writer.write(request)
    got, reset = b"", False
    try:
        while data := await reader.read(64):
            got += data
    except ConnectionResetError:
        reset = True
    writer.close()
    return got, reset


async def test_a_gate_passes_everything_on(gate: Gate) -> None:
    assert await asked(gate) == (BODY, False)
    assert (gate.requests, gate.answered) == (1, len(BODY))
    await eventually(lambda: gate.open == 0)


@pytest.mark.parametrize("at", [0, 1, 100, len(BODY) - 1])
async def test_a_cut_lets_exactly_so_many_bytes_through(gate: Gate, at: int) -> None:
    gate.planned.append(Fault(kind=FaultKind.CUT, at=at, reset=False))
    assert await asked(gate) == (BODY[:at], False)
    assert await asked(gate) == (BODY, False), "it happens to one answer"


async def test_a_cut_with_a_reset(gate: Gate) -> None:
    gate.planned.append(Fault(kind=FaultKind.CUT, at=10))
    got, _ = await asked(gate)
    assert len(got) <= 10


async def test_a_stall_holds_until_it_is_released(gate: Gate) -> None:
    gate.planned.append(Fault(kind=FaultKind.STALL, at=100))
    asking = asyncio.ensure_future(asked(gate))
    await eventually(lambda: gate.stalled == 1)
    assert not asking.done()
    assert gate.open == 1
    gate.release()
    assert await asking == (BODY, False)


async def test_a_reply_takes_the_place_of_the_answer(gate: Gate) -> None:
    gate.planned.append(Fault(kind=FaultKind.REPLY, reply=b"something else"))
    assert await asked(gate) == (b"something else", False)


async def test_probes_pass_whatever_is_planned(gate: Gate) -> None:
    gate.planned.append(Fault(kind=FaultKind.CUT, at=0))
    assert await asked(gate, b"GET /health HTTP/1.1\r\n\r\n") == (BODY, False)
    assert len(gate.planned) == 1


def faulty(home: Path) -> FaultyKernel:
    plugins = {"reference": Reference()}
    return FaultyKernel(home=home, plugins=plugins, discover=False, settings=QUICK, environ={})


@linux
async def test_a_killed_worker_behind_a_gate_comes_back_behind_another(tmp_path: Path) -> None:
    async with faulty(tmp_path) as k:
        await k.start("reference")
        first = k.primary("reference").base_url
        (program,) = k.faults.programs("reference")
        await k.faults.inject(Fault(kind=FaultKind.KILL), "reference")
        await eventually(lambda: len(k.faults.launches) == 2)
        await eventually(lambda: k.primary("reference").state == "running")
        assert not alive(program)
        assert k.primary("reference").base_url != first
        assert k.faults.launches == ["main", "main"]
        assert "word0 word1" in await ask(k, "tiny")


@linux
async def test_two_faults_of_a_launch_at_once(tmp_path: Path) -> None:
    async with faulty(tmp_path) as k:
        await k.faults.inject(Fault(kind=FaultKind.GARBAGE, at=10_000), "reference")
        await k.faults.inject(Fault(kind=FaultKind.EXIT_AT_START, exit_code=9), "reference")
        with pytest.raises(ServiceFailed) as caught:
            await k.start("reference")
        assert caught.value.details["exitCode"] == 9
        k.faults.calm()
        assert (await k.start("reference")).runtime == "running"


@linux
async def test_a_faulty_kernel_leaves_nothing_behind(tmp_path: Path) -> None:
    async def once() -> None:
        async with faulty(tmp_path) as k:
            await k.faults.inject(Fault(kind=FaultKind.HELPER), "reference")
            await ask(k, "tiny")

    await once()
    with nothing_leaks():
        for _ in range(3):
            await once()
