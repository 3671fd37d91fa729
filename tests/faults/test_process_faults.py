"""Children that do not cooperate, and kernels that die: nothing hangs, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.faults.marks import MARK, marked

from aiplayground._processes.identity import start_mark
from aiplayground._processes.ledger import end_leftovers
from aiplayground._processes.process import Process

CHILDREN = Path(__file__).parent / "children"
WORKER = [sys.executable, str(CHILDREN / "worker.py")]
FOREIGN = [sys.executable, "-I", "-S", str(CHILDREN / "foreign.py")]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def mark() -> Iterator[str]:
    """A word in the environment of everything that a test starts; nothing of it may be left."""
    word = uuid.uuid4().hex
    yield word
    for pid in marked(word):  # only after a failure
        os.kill(pid, signal.SIGKILL)


def gone_within(seconds: float, word: str, but: int = 0, seen: Iterable[int] = ()) -> bool:
    """Poll until nothing carries the mark any more, except the process `but`.

    A process loses its environment a moment before it has ended: those that were `seen` with it
    must have come to their end too.
    """
    deadline = time.monotonic() + seconds
    while left := ({*marked(word), *filter(start_mark, seen)} - {but}):
        if time.monotonic() > deadline:
            print("still alive:", *(psutil.Process(pid) for pid in left), sep="\n")
            return False
        time.sleep(0.01)
    return True


async def launch_up(
    argv: list[str], mark: str, guarded: bool, lines: list[str] | None = None
) -> Process:
    """Launch a child and wait until it says "up"."""
    up = asyncio.Event()

    def on_line(line: str) -> None:
        if lines is not None:
            lines.append(line)
        if line.startswith("up"):
            up.set()

    env = {**os.environ, MARK: mark}
    process = await Process.launch(argv, env=env, guarded=guarded, on_line=on_line)
    await asyncio.wait_for(up.wait(), 30)
    return process


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@contextlib.contextmanager
def driver(folder: Path, mode: str, mark: str) -> Iterator[subprocess.Popen[str]]:
    """Run a small kernel in a process of its own; see `children/driver.py`."""
    argv = [sys.executable, str(CHILDREN / "driver.py"), str(folder / "kernel"), mode]
    env = {**os.environ, MARK: mark}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as kernel:
        try:
            yield kernel
        finally:
            kernel.kill()


def wait_for_line(kernel: subprocess.Popen[str], start: str) -> str:
    """Return the next line of the kernel's that begins so; the test's time-out is the deadline."""
    assert kernel.stdout is not None
    for line in kernel.stdout:
        if line.startswith(start):
            return line
    raise AssertionError("the kernel ended early")


TREES = pytest.mark.parametrize(
    ("argv", "guarded"), [(WORKER, False), (FOREIGN, True)], ids=["worker", "guarded"]
)


@TREES
async def test_end_leaves_nothing_of_a_tree_that_ignores_sigterm_and_leaves_its_session(
    argv: list[str], guarded: bool, mark: str
) -> None:
    process = await launch_up(argv, mark, guarded)
    assert await process.end(0.2) == -signal.SIGKILL
    assert marked(mark) == []


@TREES
async def test_a_killed_leader_takes_its_tree_along(
    argv: list[str], guarded: bool, mark: str
) -> None:
    process = await launch_up(argv, mark, guarded)
    os.kill(process.pid, signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL
    assert gone_within(2, mark)


@TREES
async def test_a_stopped_tree_can_be_ended(argv: list[str], guarded: bool, mark: str) -> None:
    process = await launch_up(argv, mark, guarded)
    os.killpg(process.pid, signal.SIGSTOP)
    assert await process.end(0.2) == -signal.SIGKILL
    assert marked(mark) == []


async def test_a_later_caller_can_shorten_the_grace(mark: str) -> None:
    process = await launch_up(shell("trap '' TERM; echo up; while :; do sleep 1; done"), mark, True)
    patient = asyncio.create_task(process.end(3600))
    await asyncio.sleep(0)
    assert await process.end(0) == -signal.SIGKILL
    assert await patient == -signal.SIGKILL


async def test_an_ending_survives_the_cancellation_of_its_caller(mark: str) -> None:
    process = await launch_up(shell("trap '' TERM; echo up; while :; do sleep 1; done"), mark, True)
    caller = asyncio.create_task(process.end(0.2))
    await asyncio.sleep(0)
    caller.cancel()
    assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL
    assert marked(mark) == []


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("prefix", ["", "setsid "], ids=["group", "own-session"])
async def test_a_grandchild_that_holds_the_pipes_delays_nothing_for_long(
    guarded: bool, prefix: str, mark: str
) -> None:
    lines: list[str] = []
    script = f"{prefix}sh -c 'trap \"\" TERM; sleep 3600; :' & echo up; exit 7"
    process = await launch_up(shell(script), mark, guarded, lines)
    assert await asyncio.wait_for(process.wait(), 20) == 7
    assert lines == ["up"]
    assert gone_within(2, mark)


async def test_a_grandchild_that_hides_its_token_is_not_waited_for(mark: str) -> None:
    # Beyond what an unguarded child can be traced to; its pipe must not be waited for for ever.
    script = f"setsid env -i {MARK}={mark} sleep 3600 & echo up; sleep 0.3; exit 7"
    process = await launch_up(shell(script), mark, guarded=False)
    assert await asyncio.wait_for(process.wait(), 20) == 7
    assert len(marked(mark)) == 1


async def test_the_guard_gives_leftovers_a_moment_and_then_ends_them(mark: str) -> None:
    lines: list[str] = []
    polite = "setsid sh -c 'trap \"echo bye; exit\" TERM; echo ready; while :; do sleep 0.1; done'"
    wait = 'sh -c "trap \\"\\" TERM; sleep 3600; :"'
    process = await launch_up(shell(f"{polite} & {wait} & sleep 0.5; echo up"), mark, True, lines)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert [line for line in lines if line != "Terminated"] == ["ready", "up", "bye"]
    assert marked(mark) == []


async def test_garbage_output_is_harmless(mark: str) -> None:
    lines: list[str] = []
    script = "head -c 300000 /dev/urandom; head -c 300000 /dev/zero; printf '\\n\\377\\nup'"
    process = await launch_up(shell(script), mark, True, lines)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert lines[-2:] == ["\ufffd", "up"]
    assert max(map(len, lines)) <= 16 * 1024


async def test_a_flood_starves_nobody(mark: str) -> None:
    process = await launch_up(shell("echo up; exec yes"), mark, True)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while turns < 200:
            await asyncio.sleep(0)
            turns += 1

    await asyncio.wait_for(turn(), 20)
    assert await process.end(5) == -signal.SIGTERM
    assert marked(mark) == []


@pytest.mark.parametrize("mode", ["steady", "churn"])
def test_a_killed_kernel_leaves_nothing(mode: str, mark: str, tmp_path: Path) -> None:
    with driver(tmp_path, mode, mark) as kernel:
        wait_for_line(kernel, "steady" if mode == "steady" else "")
        kernel.kill()
    assert gone_within(2, mark)
    assert {left.outcome for left in end_leftovers(tmp_path)} <= {"gone"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(10, 60))]
)
def test_a_kernel_killed_at_any_moment_leaves_nothing(seed: int, mark: str, tmp_path: Path) -> None:
    delay = random.Random(seed).uniform(0, 0.6)
    with driver(tmp_path, "churn", mark) as kernel:
        wait_for_line(kernel, "")
        time.sleep(delay)
        kernel.kill()
    assert gone_within(2, mark)


def test_a_stopped_tree_ends_with_its_kernel_too(mark: str, tmp_path: Path) -> None:
    with driver(tmp_path, "steady", mark) as kernel:
        pids = [int(word) for word in wait_for_line(kernel, "").split()]
        wait_for_line(kernel, "steady")
        for pid in pids:
            os.killpg(pid, signal.SIGSTOP)
        kernel.kill()
    assert gone_within(2, mark)


def test_a_fork_of_the_kernel_does_not_keep_children_alive(mark: str, tmp_path: Path) -> None:
    with driver(tmp_path, "forking", mark) as kernel:
        copy = int(wait_for_line(kernel, "fork").split()[1])
        seen = marked(mark)
        kernel.kill()
    try:
        assert gone_within(2, mark, but=copy, seen=seen)
        # Nor does it hold the lock of the kernel that it was copied from.
        assert {left.outcome for left in end_leftovers(tmp_path)} == {"gone"}
    finally:
        os.kill(copy, signal.SIGKILL)


def test_a_worker_whose_kernel_is_gone_before_it_starts(mark: str) -> None:
    read, write = os.pipe()
    os.close(write)
    env = {**os.environ, MARK: mark, "AIPG_PARENT_FD": str(read)}
    child = subprocess.Popen(WORKER, env=env, pass_fds=[read], start_new_session=True)
    os.close(read)
    assert child.wait(20) == -signal.SIGKILL
    assert marked(mark) == []
