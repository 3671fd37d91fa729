"""A folder that belongs to one running process: whoever holds its lock file's lock.

The system frees the lock when the process ends, however that happens. Not with filelock, which
costs a kernel's start 40 ms of imports.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from . import forks

_LOCK = "lock"
_TRIES = 50


def lock_new(folder: Path) -> int:
    """Create and lock a kernel's own folder, against a cleaner that takes it for abandoned."""
    for _ in range(_TRIES):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = try_lock(folder)
        except FileNotFoundError:
            continue  # removed between the two
        except BlockingIOError:
            time.sleep(0.02)  # a cleaner finds nothing here and is quick
            continue
        if _is_at(lock, folder / _LOCK):
            return lock
        forks.close(lock)
    raise BlockingIOError(f"{folder} belongs to another kernel that is running; use another folder")


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def try_lock(folder: Path) -> int:
    """Lock the folder at once or raise BlockingIOError; return the descriptor that holds it.

    Give it back with `_forks.close`, or with `remove`. Raises OSError where there is no folder.
    """
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(*error.args) from None
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    forks.close_in_forks(fd)
    return fd


def remove(folder: Path, lock: int) -> None:
    """Remove the folder while its lock is held; Windows cannot remove a file that is open."""
    if sys.platform == "win32":
        forks.close(lock)
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32":
        forks.close(lock)
