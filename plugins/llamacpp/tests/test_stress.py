"""64 clients at the same time, and what is left of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
import pytest
from plugins.llamacpp.tests.stress import Stress
from plugins.llamacpp.tests.workers import Launch, Worker

pytestmark = pytest.mark.engine

GROWTH = 16 * 2**20
"""Bytes by which the worker may grow after it has warmed up: less than a kilobyte a request."""

SETTINGS = json.dumps({"prompt_cache": 2, "context_size": 4000})


def check_nothing_is_left(worker: Worker) -> None:
    worker.wait_idle()
    figures = dict(
        line.rsplit(" ", 1)
        for line in worker.client.get("/metrics").text.splitlines()
        if not line.startswith("#")
    )
    assert float(figures["aiplayground_requests_active"]) == 0
    assert float(figures["aiplayground_engine_slots_busy"]) == 0
    assert float(figures["aiplayground_answers_failed_total"]) == 0
    assert not [name for name in figures if 'status="5' in name]
    assert worker.process.poll() is None
    assert psutil.Process(worker.process.pid).children() == []
    assert "Traceback" not in worker.stderr


def stress(worker: Worker, seed: int, warm: dict[str, float], whole: dict[str, float]) -> Stress:
    """Run a first part, and then a whole one in which the memory must not grow."""
    work = Stress(str(worker.client.base_url), seed)
    process = psutil.Process(worker.process.pid)
    asyncio.run(work.run(**warm))  # type: ignore[arg-type]  # rounds are whole numbers
    worker.wait_idle()
    before = process.memory_info().rss
    work.seed += 1
    asyncio.run(work.run(**whole))  # type: ignore[arg-type]  # rounds are whole numbers
    check_nothing_is_left(worker)
    assert process.memory_info().rss - before < GROWTH
    print(dict(work.done), "parted at a near-tie:", work.parted)
    return work


def test_64_clients(launch: Launch, model_path: Path) -> None:
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", SETTINGS)
    work = stress(worker, 1, {"rounds": 2}, {"rounds": 5})
    assert sum(work.done.values()) == 64 * 7
    assert len(work.done) == 8


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("unified", [True, False])
def test_64_clients_for_two_minutes(launch: Launch, model_path: Path, unified: bool) -> None:
    settings = json.dumps({**json.loads(SETTINGS), "kv_unified": unified})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    work = stress(worker, 2, {"seconds": 30}, {"seconds": 120})
    assert len(work.done) == 8
