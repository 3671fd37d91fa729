"""SIGKILL of a program with a kernel in it, at any moment: no child outlives it by two seconds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tests
from plugins.llamacpp.tests.tiny_model import write_model
from tests.faults.marks import MARK, marked

from aiplayground._processes.ledger import end_leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

CHILDREN = Path(__file__).parent / "children"
HOST, ENGINE_HOST = CHILDREN / "host.py", CHILDREN / "engine_host.py"
ROOT = Path(tests.__file__).parents[1]
LIMIT = 2.0
"""Seconds that the design gives a child to end after its kernel was killed."""

NORMAL = range(10)
FULL = [pytest.param(seed, marks=pytest.mark.full) for seed in range(10, 50)]


@contextmanager
def program(tmp_path: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *argv],
        env={**os.environ, MARK: str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()
    for pid in marked(str(tmp_path)):  # only after a failure
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    options = [str(tmp_path / "home"), f"count={tmp_path / 'count'}", "stubborn"]
    with program(tmp_path, str(HOST), *options) as process:
        yield process


@pytest.fixture
def engine_host(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    write_model(models / "tiny.gguf")
    with program(tmp_path, str(ENGINE_HOST), str(tmp_path / "home")) as process:
        yield process


def kill_after(process: subprocess.Popen[str], seconds: float, tmp_path: Path) -> None:
    """Kill the program some time after it has come up; none of its children may stay."""
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    time.sleep(seconds)
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + LIMIT
    while (left := marked(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
    end_leftovers(tmp_path / "home" / "state" / "kernels")
    assert not list((tmp_path / "home" / "state" / "kernels").iterdir()), "the ledger is cleared"


@pytest.mark.parametrize("seed", [*NORMAL, *FULL])
def test_no_child_outlives_the_kernel(
    tmp_path: Path, host: subprocess.Popen[str], seed: int
) -> None:
    kill_after(host, random.Random(seed).random() * 0.8, tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("seed", [*NORMAL, *FULL])
def test_no_engine_outlives_the_kernel(
    tmp_path: Path, engine_host: subprocess.Popen[str], seed: int
) -> None:
    kill_after(engine_host, random.Random(seed).random() * 3, tmp_path)


def test_the_program_really_is_killed_at_both_moments(host: subprocess.Popen[str]) -> None:
    """The loop that is killed has starts that end and starts that are cut short."""
    assert host.stdout is not None
    seen = set()
    for line in host.stdout:
        seen.add(line.strip())
        if {"running", "pre-empted"} <= seen:
            break
    assert seen == {"open", "running", "pre-empted"}
