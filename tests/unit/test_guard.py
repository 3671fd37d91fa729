"""The guard as a program: it leaves as its program left, and ends with its lifeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiplayground._processes import guard as guard_module
from aiplayground._processes.spawn import guard_command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


@contextmanager
def guard(
    *argv: str, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a program under a guard; yield the guard and the write end of its lifeline."""
    env = {"PATH": os.environ["PATH"]} if env is None else env
    read, write = os.pipe()
    with subprocess.Popen(
        guard_command(argv, env, read),
        env=env,
        pass_fds=[read],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as popen:
        os.close(read)
        try:
            yield popen, write
        finally:
            os.close(write)
            popen.wait(10)


def result(*argv: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    with guard(*argv, env=env) as (popen, _):
        out, err = popen.communicate(timeout=20)
    return popen.returncode, out, err


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_codes_are_mirrored(code: int) -> None:
    assert result("sh", "-c", f"exit {code}") == (code, "", "")


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT", "HUP", "INT", "PIPE", "USR1"])
def test_signals_are_mirrored(name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    assert result("sh", "-c", f"kill -{name} $$") == (-number, "", "")


def test_a_missing_program_and_one_that_cannot_be_executed(tmp_path: Path) -> None:
    missing, data = str(tmp_path / "none"), str(tmp_path / "data")
    Path(data).write_text("nothing that runs", encoding="ascii")
    assert result(missing) == (127, "", f"cannot find {missing!r}: No such file or directory\n")
    assert result("no such program")[0] == 127
    assert result(data) == (126, "", f"cannot execute {data!r}: Permission denied\n")


@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C"}, {"LC_CTYPE": "C", "B": "=x="}])
def test_the_program_sees_its_environment_as_given(env: dict[str, str]) -> None:
    _, out, _ = result("/usr/bin/env", env=env)
    assert dict(line.split("=", 1) for line in out.splitlines()) == env


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_program_starts_with_default_dispositions_and_no_mask() -> None:
    _, out, _ = result("grep", "-E", "SigIgn|SigBlk", "/proc/self/status")
    glibc_own = 1 << 31 | 1 << 32
    masks = [int(line.split()[1], 16) for line in out.splitlines()]
    assert [mask & ~glibc_own for mask in masks] == [0, 0]


def test_the_guard_outlives_sigterm_and_its_program_gets_it() -> None:
    script = "trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with guard("sh", "-c", script) as (popen, _):
        assert popen.stdout is not None
        assert popen.stdout.readline() == "up\n"
        os.killpg(popen.pid, signal.SIGTERM)
        assert popen.wait(10) == 5
        assert popen.stdout.read().splitlines()[-1] == "got it"


def test_the_end_of_the_lifeline_ends_everything() -> None:
    with guard("sh", "-c", "trap '' TERM; setsid sleep 60 & echo up; sleep 60") as (popen, write):
        assert popen.stdout is not None
        assert popen.stdout.readline() == "up\n"
        with Path(os.devnull).open() as other:
            os.dup2(other.fileno(), write)  # closes the lifeline and keeps the number in use
        assert popen.wait(10) == -signal.SIGKILL
        assert popen.stdout.read() == ""  # also means that nobody holds the pipe any more


def test_a_lifeline_that_has_ended_before_the_start() -> None:
    read, write = os.pipe()
    os.close(write)
    argv = guard_command(["echo", "never"], {}, read)
    done = subprocess.run(
        argv, pass_fds=[read], start_new_session=True, capture_output=True, timeout=20, check=False
    )
    os.close(read)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_descendants_are_found_through_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"  # as the name of a process stands in /proc/pid/stat
    odd.symlink_to("/bin/sh")
    with subprocess.Popen(
        [odd, "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        assert {shell.pid, grandchild} <= set(guard_module.descendants(os.getpid()))
        assert guard_module.descendants(shell.pid) == [grandchild]
        guard_module.signal_all([grandchild, shell.pid, 2**22 - 1], signal.SIGKILL)
    assert guard_module.descendants(shell.pid) == []
