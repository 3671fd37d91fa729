"""What a dead kernel left running is ended: exactly that, by proof and not by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiplayground._processes import forks
from aiplayground._processes import ledger as ledger_module
from aiplayground._processes.identity import TOKEN, boot_id, start_mark
from aiplayground._processes.ledger import Ledger, end_leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX programs")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that carries the token "t", in a group of its own."""
    env = {**os.environ, TOKEN: "t"}
    with subprocess.Popen(["sleep", "60"], env=env, start_new_session=True) as popen:
        yield popen
        popen.kill()


def abandon(ledger: Ledger) -> None:
    """Leave a ledger as a killed kernel does: the system frees the lock, the folder stays."""
    os.close(ledger._file)
    forks.close(ledger._lock)


def dead_kernel(root: Path, *lines: dict[str, Any] | bytes) -> Path:
    """Write the folder of a kernel that is gone."""
    folder = root / "dead"
    folder.mkdir(parents=True)
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "ledger.jsonl").write_bytes(b"\n".join(data))
    return folder


def record(child: subprocess.Popen[bytes], **changes: Any) -> dict[str, Any]:
    mark = start_mark(child.pid)
    return {"pid": child.pid, "mark": mark, "boot": boot_id(), "token": "t", **changes}


def outcomes(root: Path) -> list[tuple[int, str]]:
    return [(left.pid, left.outcome) for left in end_leftovers(root)]


def test_a_leftover_is_ended_and_its_folder_removed(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    ledger = Ledger(tmp_path / "one")
    ledger.record(child.pid, "t")
    abandon(ledger)
    assert outcomes(tmp_path) == [(child.pid, "ended")]
    assert child.wait(5) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_the_whole_tree_of_a_leftover_is_ended(tmp_path: Path) -> None:
    script = "setsid sleep 60 & sleep 60 & echo $!; wait"
    env = {**os.environ, TOKEN: "tree"}
    with subprocess.Popen(
        ["sh", "-c", script], env=env, stdout=subprocess.PIPE, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        ledger = Ledger(tmp_path / "one")
        ledger.record(shell.pid, "tree")
        abandon(ledger)
        assert outcomes(tmp_path) == [(shell.pid, "ended")]
        assert shell.stdout.read() == b""  # nobody holds the pipe any more


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/pid/environ")
def test_what_outlived_its_leader_is_found_by_its_token(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    dead_kernel(tmp_path, record(child, pid=2**22 - 1, mark=1.0))
    assert outcomes(tmp_path) == [(2**22 - 1, "ended")]
    assert child.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize(
    "changes",
    [
        {"mark": 1.0, "token": "other"},
        {"mark": None, "token": "other"},
        {"token": "other"},
    ],
    ids=["pid-reused", "no-mark", "another-token"],
)
def test_a_process_that_is_not_ours_is_left_alone(
    tmp_path: Path, child: subprocess.Popen[bytes], changes: dict[str, Any]
) -> None:
    dead_kernel(tmp_path, record(child, **changes))
    assert outcomes(tmp_path) == [(child.pid, "foreign")]
    assert child.poll() is None


def test_another_boot_is_another_world(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    dead_kernel(tmp_path, record(child, boot="another"))
    assert outcomes(tmp_path) == [(child.pid, "gone")]
    assert child.poll() is None


def test_damaged_lines_are_reported_and_passed_over(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    entry = record(child)
    torn = json.dumps(entry).encode()[:-9]
    odd: list[dict[str, Any]] = [
        {"pid": "1"},
        {"pid": 1, "ended": True},
        {**entry, "token": ""},
        {**entry, "pid": -1},
    ]
    dead_kernel(tmp_path, b"\xff\x00", b"[]", b"null", *odd, torn, entry, b"")
    found = end_leftovers(tmp_path)
    assert [left.outcome for left in found] == ["unreadable"] * 8 + ["ended"]
    assert "\\xff" in found[0].detail


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_ledger_cut_at_any_byte_is_read_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    ledger = Ledger(tmp_path / "one")
    for pid in (os.getpid(), os.getppid()):
        ledger.record(pid, "no such token")
    records = tmp_path / "one" / "ledger.jsonl"
    records.write_bytes(records.read_bytes()[:-cut] if cut else records.read_bytes())
    abandon(ledger)
    assert {outcome for _, outcome in outcomes(tmp_path)} <= {"foreign", "unreadable"}
    assert list(tmp_path.iterdir()) == []


def test_this_process_and_its_ancestors_are_spared(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_own_line", lambda: {child.pid})
    dead_kernel(tmp_path, record(child))
    end_leftovers(tmp_path)
    assert child.poll() is None
    monkeypatch.undo()
    assert {os.getpid(), os.getppid()} <= ledger_module._own_line()


def test_a_living_kernel_is_left_alone(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    ledger = Ledger(tmp_path / "one")
    ledger.record(child.pid, "t")
    assert end_leftovers(tmp_path) == []
    assert child.poll() is None
    with pytest.raises(BlockingIOError, match="another kernel"):
        Ledger(tmp_path / "one")
    ledger.close()


def test_what_has_ended_is_struck_out(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    ledger = Ledger(tmp_path / "one")
    ledger.record(child.pid, "t")
    ledger.record(os.getpid(), "no such token")
    ledger.forget(child.pid)
    abandon(ledger)
    assert outcomes(tmp_path) == [(os.getpid(), "foreign")]
    assert child.poll() is None


def test_closing_removes_the_folder_unless_children_are_recorded(tmp_path: Path) -> None:
    empty, full = Ledger(tmp_path / "empty"), Ledger(tmp_path / "full")
    full.record(os.getpid(), "no such token")
    for ledger in (empty, empty, full):
        ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert outcomes(tmp_path) == [(os.getpid(), "foreign")]


def test_no_runtime_folder_and_stray_files_are_no_error(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path / "none") == []
    (tmp_path / "file").touch()
    assert end_leftovers(tmp_path) == []
    assert (tmp_path / "file").exists()


def test_kernels_that_come_and_clean_at_once_do_not_trip_over_one_another(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def kernel(number: int) -> None:
        try:
            start.wait(10)
            for turn in range(20):
                end_leftovers(tmp_path)
                ledger = Ledger(tmp_path / f"{number}-{turn}")
                ledger.record(os.getpid(), "no such token")
                assert (ledger.folder / "ledger.jsonl").stat().st_size > 0
                if turn % 2:
                    ledger.forget(os.getpid())
                ledger.close()
        except BaseException as error:  # noqa: BLE001  handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=kernel, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    end_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
