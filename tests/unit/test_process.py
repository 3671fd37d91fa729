"""Launching, waiting and ending, on well-behaved children."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiplayground._processes import output
from aiplayground._processes.ledger import Ledger
from aiplayground._processes.process import Process

BOTH = pytest.mark.parametrize("guarded", [False, True], ids=["worker", "guarded"])
SLEEP = ["sleep", "60"]


async def launch(
    *argv: str, guarded: bool = False, lines: list[str] | None = None, **more: Any
) -> Process:
    env = more.pop("env", {"PATH": os.environ["PATH"]})
    on_line = (lines if lines is not None else []).append
    return await Process.launch(argv, env=env, guarded=guarded, on_line=on_line, **more)


async def code(*argv: str, **more: Any) -> int:
    process = await launch(*argv, **more)
    return await process.wait()


def python(source: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", source]


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    def held() -> tuple[int, int, int, list[psutil.Process]]:
        gc.collect()
        this = psutil.Process()
        tasks = len(asyncio.all_tasks())
        return this.num_fds(), threading.active_count(), tasks, this.children(recursive=True)

    before = held()
    yield
    assert held() == before


@BOTH
async def test_exit_code_and_last_lines_are_there_when_wait_returns(guarded: bool) -> None:
    lines: list[str] = []
    process = await launch(
        *python("import sys; print('out'); sys.stderr.write('err'); sys.exit(3)"),
        guarded=guarded,
        lines=lines,
    )
    assert await asyncio.gather(*(process.wait() for _ in range(5))) == [3] * 5
    assert sorted(lines) == ["err", "out"]
    assert process.returncode == 3
    assert process.tree() == []


@BOTH
async def test_a_signal_shows_as_a_negative_code(guarded: bool) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert await code(*python(crash), guarded=guarded) == -signal.SIGSEGV


@BOTH
async def test_environment_is_exactly_what_was_given(guarded: bool) -> None:
    lines: list[str] = []
    process = await launch("env", guarded=guarded, lines=lines, env={"PATH": "/usr/bin:/bin"})
    await process.wait()
    names = {line.partition("=")[0] for line in lines}
    ours = {"AIPG_CHILD_TOKEN"} if guarded else {"AIPG_CHILD_TOKEN", "AIPG_PARENT_FD"}
    assert names == {"PATH", *ours}


@BOTH
async def test_only_the_listed_descriptors_are_inherited(guarded: bool) -> None:
    lines: list[str] = []
    with socket.socket() as passed, socket.socket() as kept:
        os.set_inheritable(kept.fileno(), True)
        process = await launch(
            "ls", "-l", "/proc/self/fd", guarded=guarded, lines=lines, pass_fds=[passed.fileno()]
        )
        await process.wait()
        expected = [str(passed.fileno())]
    numbers = {line.split(" -> ")[0].split()[-1] for line in lines if " -> " in line}
    sockets = [line.split(" -> ")[0].split()[-1] for line in lines if "socket:" in line]
    assert sockets == expected
    # stdin, stdout, stderr, the socket, the folder that ls reads, and a worker's lifeline
    assert len(numbers) == (5 if guarded else 6)


async def test_the_guard_keeps_no_copy_of_a_passed_socket() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        serve = f"import socket; s = socket.socket(fileno={sock.fileno()}); s.listen(); print('up')"
        serve += "; s.close(); print('down'); import time; time.sleep(60)"
        down = asyncio.Event()
        process = await Process.launch(
            python("import sys; sys.stdout.reconfigure(line_buffering=True); " + serve),
            env={},
            guarded=True,
            pass_fds=[sock.fileno()],
            on_line=lambda line: down.set() if line == "down" else None,
        )
    await asyncio.wait_for(down.wait(), 10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert await process.end(5) == -signal.SIGTERM


@BOTH
async def test_working_folder_and_closed_stdin(guarded: bool, tmp_path: Path) -> None:
    lines: list[str] = []
    show = "import os, sys; print(os.getcwd()); print(repr(sys.stdin.read()))"
    await code(*python(show), guarded=guarded, lines=lines, cwd=tmp_path)
    assert lines == [str(tmp_path), "''"]


async def test_a_missing_program_is_an_error_at_once(tmp_path: Path) -> None:
    with nothing_leaks(), pytest.raises(FileNotFoundError):
        await launch(str(tmp_path / "none"))
    with nothing_leaks(), pytest.raises(FileNotFoundError):
        await launch("true", guarded=True, cwd=tmp_path / "none")


@BOTH
async def test_end_is_polite_first_and_shared_by_all_callers(guarded: bool) -> None:
    process = await launch(*SLEEP, guarded=guarded)
    codes = await asyncio.gather(*(process.end(30) for _ in range(20)))
    assert set(codes) == {-signal.SIGTERM}
    assert await process.end(0) == -signal.SIGTERM


async def test_cancelled_waiters_disturb_nobody() -> None:
    process = await launch(*SLEEP)
    waiting = [asyncio.create_task(process.wait()) for _ in range(3)]
    ending = asyncio.create_task(process.end(30))
    await asyncio.sleep(0)
    for task in (waiting[0], ending):
        task.cancel()
    codes = await asyncio.gather(*waiting, ending, return_exceptions=True)
    assert isinstance(codes[0], asyncio.CancelledError)
    assert isinstance(codes[3], asyncio.CancelledError)
    assert codes[1:3] == [-signal.SIGTERM] * 2


@BOTH
async def test_fifty_launches_leak_nothing(guarded: bool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "kernel")
    with nothing_leaks():
        codes = [await code("true", guarded=guarded, ledger=ledger) for _ in range(50)]
    assert codes == [0] * 50
    assert (tmp_path / "kernel" / "ledger.jsonl").stat().st_size == 0
    ledger.close()


async def test_a_cancelled_launch_leaves_nothing() -> None:
    with nothing_leaks():
        task = asyncio.create_task(launch(*SLEEP))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task


@pytest.mark.parametrize("step", ["watch_exit", "OutputReader"])
async def test_a_failure_after_the_spawn_ends_the_child(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(f"aiplayground._processes.process.{step}", fail)
    with nothing_leaks(), pytest.raises(RuntimeError):
        await launch(*SLEEP)


async def test_the_ledger_knows_a_child_from_its_launch_to_its_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "kernel")
    records = tmp_path / "kernel" / "ledger.jsonl"
    process = await launch(*SLEEP, ledger=ledger)
    assert f'"pid": {process.pid}' in records.read_text(encoding="utf-8")
    await process.end(5)
    assert records.read_text(encoding="utf-8") == ""
    ledger.close()


async def test_cpu_time_covers_the_tree() -> None:
    ready = asyncio.Event()
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('burnt', flush=True)\n"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = await Process.launch(
        python(parent + "; time.sleep(60)"),
        env={},
        guarded=True,
        on_line=lambda _: ready.set(),
    )
    await asyncio.wait_for(ready.wait(), 20)
    assert len(process.tree()) >= 2
    assert process.cpu_seconds() >= 0.2
    await process.end(5)
    assert process.cpu_seconds() == 0


@BOTH
def test_kill_now_needs_no_running_loop(guarded: bool) -> None:
    fds = psutil.Process().num_fds()
    with asyncio.Runner() as runner:
        process = runner.run(launch(*SLEEP, guarded=guarded))
        process.kill_now()
        assert not psutil.pid_exists(process.pid)
        assert runner.run(process.wait()) == -signal.SIGKILL
        left = runner.run(launch(*SLEEP, guarded=guarded))
    left.kill_now()  # the loop is closed
    left.kill_now()
    assert not psutil.pid_exists(left.pid)
    assert left.returncode == -signal.SIGKILL
    assert psutil.Process().num_fds() == fds


def test_loops_in_several_threads_work_side_by_side() -> None:
    codes: list[int] = []

    async def run(number: int) -> None:
        processes = [await launch("sh", "-c", f"exit {number}", guarded=True) for _ in range(3)]
        codes.extend([await process.wait() for process in processes])

    threads = [
        threading.Thread(target=asyncio.run, args=(run(number),), daemon=True)
        for number in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(codes) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_it_runs_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    lines: list[str] = []

    async def run() -> list[int]:
        done = await launch("echo", "hello", guarded=True, lines=lines)
        slow = await launch(*SLEEP)
        return [await done.wait(), await slow.end(10)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == [0, -signal.SIGTERM]
    assert lines == ["hello"]


@BOTH
async def test_threads_stand_in_where_there_is_no_pidfd(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise PermissionError("not here")

    class Threaded(output.OutputReader):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, threaded=True)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr("aiplayground._processes.process.OutputReader", Threaded)
    lines: list[str] = []
    threads = set(threading.enumerate())
    process = await launch("echo", "hello", guarded=guarded, lines=lines)
    assert await process.wait() == 0
    assert lines == ["hello"]
    slow = await launch(*SLEEP, guarded=guarded)
    assert await slow.end(10) == -signal.SIGTERM
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()


async def test_a_receiver_that_raises_is_reported_and_does_not_stop_the_rest() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    seen: list[str] = []

    def on_line(line: str) -> None:
        seen.append(line)
        if line == "bad":
            raise ValueError(line)

    argv = ["printf", "good\\nbad\\nlast\\n"]
    process = await Process.launch(argv, env=dict(os.environ), guarded=False, on_line=on_line)
    assert await process.wait() == 0
    assert seen == ["good", "bad", "last"]
    assert [str(report["exception"]) for report in reports] == ["bad"]


async def test_impatient_callers_do_not_put_off_the_killing() -> None:
    process = await launch(*SLEEP)  # a worker that does not watch its parent
    callers = []
    while process.returncode is None:
        callers.append(asyncio.create_task(process.end(0)))
        await asyncio.sleep(0.1)
    assert set(await asyncio.gather(*callers)) == {-signal.SIGKILL}


async def test_a_ledger_that_cannot_be_written(tmp_path: Path) -> None:
    class Full(Ledger):
        def forget(self, pid: int) -> None:
            super().forget(pid)
            raise OSError("No space left on device")

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    ledger = Full(tmp_path / "kernel")
    assert await code("true", ledger=ledger) == 0
    assert [str(report["exception"]) for report in reports] == ["No space left on device"]
    ledger.close()
    with nothing_leaks(), pytest.raises(OSError, match="descriptor"):
        await launch(*SLEEP, ledger=ledger)  # closed: an unrecorded child is not kept
