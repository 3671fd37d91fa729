"""Memory that a real engine gives back: llama.cpp's conversations, before any model goes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from plugins.llamacpp.tests import tiny_model
from tests.fakes import QUICK, ask, question

import aiplayground_llamacpp.plugin as llamacpp
from aiplayground import Kernel
from aiplayground.admission._measure import Reading
from aiplayground.memory import private_memory

pytestmark = pytest.mark.engine

SERVICE = "llamacpp-backend"
MIB = 2**20
SHORT = 4 * MIB
"""Bytes that are missing; the conversations below take several times as much."""


class Computer:
    """A computer with so many bytes of memory, of which the workers take what they really take."""

    def __init__(self) -> None:
        self.size = 2**40

    def probe(self, pids: Collection[int]) -> Reading:
        taken = {pid: private_memory([pid]) for pid in pids}
        return Reading(self.size - sum(taken.values()), taken)

    async def lack(self, kernel: Kernel, model: str, missing: int) -> None:
        """Leave so much that `missing` bytes are not there for a model."""
        self.size = 2**40
        plan = await kernel.plan(model)
        assert plan.outcome == "load"
        self.size -= plan.free["main memory"] - plan.needs["main memory"] + missing


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models whose tokens take 4 KiB of context each: a conversation here is 2 MiB."""
    for name, value in {"WIDTH": 128, "LAYERS": 8, "KV_HEADS": 4}.items():
        monkeypatch.setattr(tiny_model, name, value)
    (tmp_path / "models").mkdir()
    one = tiny_model.write_model(tmp_path / "models" / "one.gguf")
    for name in ("two", "three"):
        one.with_name(f"{name}.gguf").write_bytes(one.read_bytes())
    return tmp_path


@pytest.fixture
async def kernel(home: Path) -> AsyncIterator[Kernel]:
    settings = {**QUICK, "residency": {"memory_margin": 0, "max_models": 9}}
    async with Kernel(
        home=home, plugins={SERVICE: llamacpp}, discover=False, settings=settings, environ={}
    ) as kernel:
        yield kernel


async def converse(kernel: Kernel, model: str) -> None:
    """Have more conversations than there are slots: all but those of the slots are kept."""
    source = random.Random(5)
    texts = ["".join(source.choices("abcdefghij", k=430)) for _ in range(15)]
    talks = (kernel.chat(_saying(model, text)) for text in texts)
    for talk in talks:
        assert [chunk async for chunk in talk]


def _saying(model: str, text: str) -> dict[str, object]:
    request = question(model, max_tokens=2).model_dump(exclude_none=True)
    return {**request, "messages": [{"role": "user", "content": text}]}


def pid_of(kernel: Kernel, model: str) -> int:
    workers = kernel.service(SERVICE).workers
    pid = next(each.pid for each in workers if each.model == model)
    assert pid is not None
    return pid


async def test_conversations_are_given_back_and_only_then_a_model_goes(kernel: Kernel) -> None:
    computer = Computer()
    kernel._host.admission.probe = computer.probe
    await kernel.ensure_ready(SERVICE, "one")
    await converse(kernel, "one")
    worker = pid_of(kernel, "one")

    await computer.lack(kernel, "two", SHORT)
    before = private_memory([worker])
    plan = await kernel.plan("two")
    assert plan.outcome == "load"
    assert "caches of loaded models would be given back" in plan.message
    assert private_memory([worker]) > before - MIB  # a plan changes nothing
    await kernel.ensure_ready(SERVICE, "two")
    assert kernel.service(SERVICE).models == ("one", "two")
    assert private_memory([worker]) < before - 2 * SHORT
    assert pid_of(kernel, "one") == worker

    # What is left has no caches to speak of: now one has to go.
    await computer.lack(kernel, "three", SHORT)
    await kernel.ensure_ready(SERVICE, "three")
    assert kernel.service(SERVICE).models == ("two", "three")
    told = [line.text for line in kernel.log().tail()]
    steps = [each for each in told if "gave back" in each or "makes room" in each]
    assert len(steps) == 2
    assert steps[0].startswith("one gave back")
    assert int(steps[0].split()[3]) > 2 * SHORT
    assert steps[1] == f"{SERVICE}/one makes room for {SERVICE}/three"
    assert await ask(kernel, "two", max_tokens=2)  # who stayed goes on answering


async def test_what_a_pinned_model_keeps_does_not_keep_another_out(kernel: Kernel) -> None:
    computer = Computer()
    kernel._host.admission.probe = computer.probe
    await kernel.ensure_ready(SERVICE, "one")
    kernel.pin(SERVICE, "one")
    await converse(kernel, "one")
    await computer.lack(kernel, "two", SHORT)
    await kernel._host.admission.check(SERVICE, "two")
    await computer.lack(kernel, "two", 200 * MIB)
    plan = await kernel.plan("two")
    assert plan.outcome == "refuse"
    assert "they are not enough" in plan.message
    assert private_memory([pid_of(kernel, "one")]) > 4 * SHORT  # nothing was given for that
