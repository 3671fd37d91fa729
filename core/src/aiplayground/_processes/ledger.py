"""Which children a kernel has, on disk, so that the next kernel ends exactly what a dead one left.

A ledger (pid, start mark, boot id, token) lets the next kernel end leftovers, exactly its own,
never by name. Each kernel has a folder of its own with `ledger.jsonl` beside `lock`; the lock is
held for the kernel's life, and the system frees it however that ends. Lines are appended with one
write each, so that SIGKILL at any moment costs at most the last one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import forks
from .identity import (
    Marked,
    boot_id,
    carriers,
    carries,
    kill_marked,
    marked_descendants,
    start_mark,
)
from .locks import lock_new, remove, try_lock

KILL_LIMIT = 2.0
"""Seconds to wait for killed leftovers to be gone."""

_RECORDS = "ledger.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What became of one record of a kernel that is gone.

    `ended`: it was alive and is killed. `gone`: nothing of it was left. `foreign`: its pid belongs
    to another process now, which was left alone. `alive`: it could not be killed; the folder stays
    for the next kernel. `unreadable`: the line is damaged; `pid` is 0.
    """

    kernel: str
    pid: int
    outcome: Literal["ended", "gone", "foreign", "alive", "unreadable"]
    detail: str = ""


class Ledger:
    """The ledger of one running kernel; holds the folder's lock until `close`."""

    def __init__(self, folder: Path) -> None:
        """Create the folder and lock it. Raises OSError; BlockingIOError if it is in use."""
        self.folder = folder
        self._lock = lock_new(folder)
        self._live: set[int] = set()
        self._boot = boot_id()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / _RECORDS, flags, 0o600)

    def record(self, pid: int, token: str) -> None:
        """Write down a child of ours that has just been started and is not reaped."""
        entry = {"pid": pid, "mark": start_mark(pid), "boot": self._boot, "token": token}
        self._append(entry)
        self._live.add(pid)

    def forget(self, pid: int) -> None:
        """Strike out a child whose tree has ended."""
        self._live.discard(pid)
        if self._live:
            self._append({"pid": pid, "ended": True})
        else:
            os.ftruncate(self._file, 0)  # keeps the file small over a long life

    def close(self) -> None:
        """Release the lock; remove the folder unless children are still recorded. Idempotent."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        if self._live:
            forks.close(self._lock)
        else:
            remove(self.folder, self._lock)

    def _append(self, entry: dict[str, Any]) -> None:
        # The line end comes first too, so that a torn line cannot spoil the next one.
        os.write(self._file, b"\n" + json.dumps(entry).encode() + b"\n")


def end_leftovers(runtime_root: Path) -> list[Leftover]:
    """End what kernels that are gone left running, and remove their folders.

    `runtime_root` holds one folder per kernel; one whose lock is held is left alone. Two kernels
    may do this at once. Blocks for at most `KILL_LIMIT` seconds per folder.
    """
    found: list[Leftover] = []
    folders = sorted(runtime_root.iterdir()) if runtime_root.is_dir() else []
    for folder in folders:
        try:
            lock = try_lock(folder)
        except OSError:
            continue  # held by its living kernel, no folder, or removed meanwhile
        try:
            outcomes = list(_end_records(folder))
        except BaseException:
            forks.close(lock)
            raise
        found += outcomes
        if any(outcome.outcome == "alive" for outcome in outcomes):
            forks.close(lock)
        else:
            remove(folder, lock)
    return found


def _end_records(folder: Path) -> Iterator[Leftover]:
    live: dict[int, dict[str, Any]] = {}
    for line in _lines(folder / _RECORDS):
        entry = _parse(line)
        if entry is None:
            yield Leftover(
                kernel=folder.name, pid=0, outcome="unreadable", detail=ascii(line[:200])
            )
        elif entry.get("ended"):
            live.pop(entry["pid"], None)
        else:
            live[entry["pid"]] = entry
    for pid, entry in live.items():
        yield Leftover(kernel=folder.name, pid=pid, outcome=_end_record(entry))


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or type(entry.get("pid")) is not int or entry["pid"] <= 1:
        return None
    if entry.get("ended") is True:
        return entry
    whole = isinstance(entry.get("boot"), str) and isinstance(entry.get("token"), str)
    return entry if whole and entry["token"] else None


def _end_record(entry: dict[str, Any]) -> Literal["ended", "gone", "foreign", "alive"]:
    if entry["boot"] != boot_id():
        return "gone"
    pid, mark, token = entry["pid"], entry.get("mark"), entry["token"]
    now = start_mark(pid)
    ours = now is not None and now == mark and carries(pid, token) is not False
    victims = _victims(entry, ours)
    if not victims:
        return "foreign" if now is not None and not ours else "gone"
    spared = _own_line()
    deadline = time.monotonic() + KILL_LIMIT
    while victims := {victim for victim in victims if victim[0] not in spared}:
        if time.monotonic() > deadline:
            return "alive"
        if ours:
            _kill_group(pid, now)
        kill_marked(victims)
        time.sleep(0.005)
        still = {victim for victim in victims if start_mark(victim[0]) == victim[1]}
        victims = still | _victims(entry, ours=False)
    return "ended"


def _victims(entry: dict[str, Any], ours: bool) -> set[Marked]:
    """Return the recorded process with its tree if it is `ours`, and whatever has its token."""
    pid = entry["pid"]
    pids = carriers(entry["token"])
    found = {(pid, mark) for pid in pids if (mark := start_mark(pid)) is not None}
    if ours:
        found |= {(pid, entry["mark"]), *marked_descendants(pid)}
    return found


def _own_line() -> set[int]:
    """Return this process and its ancestors: a kernel may run inside a child of a dead one."""
    import psutil

    this = psutil.Process()
    return {this.pid, *(parent.pid for parent in this.parents())}


def _kill_group(pid: int, mark: float | None) -> None:
    """Kill the group that the process leads, if it does and is still the same."""
    if sys.platform == "win32" or start_mark(pid) != mark:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
