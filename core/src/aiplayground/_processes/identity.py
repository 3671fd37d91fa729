"""Which process is which: start marks, boot id and child tokens, safe against reused pids."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from . import guard

TOKEN = "AIPG_CHILD_TOKEN"
"""Environment variable that the kernel gives each child; what a child starts inherits it."""

Marked: TypeAlias = tuple[int, float]
"""A pid with its start mark: names one process for good, unlike the pid alone."""


def boot_id() -> str:
    """Return what tells this boot of the machine from any other: marks hold within one boot."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    import psutil

    return str(round(psutil.boot_time()))


def start_mark(pid: int) -> float | None:
    """Return when the process started, in a unit of the system's own; None if gone or a zombie.

    Linux: clock ticks since boot (proc(5), /proc/pid/stat field 22), which a change of the wall
    clock leaves alone; elsewhere epoch seconds.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        fields = stat.rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def carries(pid: int, token: str) -> bool | None:
    """Whether the process was started with this child token; None where it cannot be told."""
    if sys.platform != "linux":
        return None
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    # A zombie's is empty.
    return f"{TOKEN}={token}".encode() in environ.split(b"\0") if environ else None


def carriers(token: str) -> list[int]:
    """Return the pids of all processes that carry the token; always empty outside Linux.

    It finds what left the group, the session and the tree of a child that has died.
    """
    return guard.carriers(f"{TOKEN}={token}")


def marked_descendants(root: int) -> list[Marked]:
    """Return all descendants of `root` with their start marks, parents first."""
    if sys.platform == "linux":
        pids = guard.descendants(root)
    else:
        import psutil

        try:
            pids = [child.pid for child in psutil.Process(root).children(recursive=True)]
        except psutil.Error:
            return []
    return [(pid, mark) for pid in pids if (mark := start_mark(pid)) is not None]


def kill_marked(processes: Iterable[Marked]) -> None:
    """Kill each process that is still the one it was; a reused pid is left alone."""
    for pid, mark in processes:
        if start_mark(pid) == mark:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
