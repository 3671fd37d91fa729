"""What a worker owes the kernel that launched it: to end when the kernel does.

A worker calls `watch_parent()` first thing, before it imports its engine. The kernel holds the
write end of a pipe (the lifeline) whose read end the worker inherits as `AIPG_PARENT_FD`; end of
file means that the kernel is gone, however it went.

The watch is a thread, so native code that keeps the interpreter lock for seconds delays it. A
worker with such an engine is launched guarded instead (`LaunchSpec.ours=False`): the guard is a
process of its own, and `watch_parent()` then has nothing to do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time

from aiplayground._processes import guard
from aiplayground._processes.identity import TOKEN

from .protocol import PARENT_FD_VARIABLE


def watch_parent() -> bool:
    """End this process, and all that it started, as soon as the kernel is gone.

    Called once, by the worker, at its start. On Linux the worker also becomes a subreaper:
    what its children orphan stays in its tree and ends with it. An adopted orphan that ends stays
    a zombie until the worker does. Returns False where there is nothing to watch: the program was
    started by hand or under a guard, or the job object of Windows does the same.
    """
    value = os.environ.pop(PARENT_FD_VARIABLE, None)
    if value is None or sys.platform == "win32":
        return False
    lifeline = int(value)
    os.set_inheritable(lifeline, False)
    guard.become_subreaper()
    guard.continue_at_end(lifeline)
    if guard.ended(lifeline):
        _end()
    atexit.register(_end_if_orphaned, lifeline)
    threading.Thread(target=_watch, args=(lifeline,), name="parent-watch", daemon=True).start()
    return True


def inherited_socket(fd: int) -> socket.socket:
    """Take over the bound socket that the kernel passed as descriptor `fd`.

    For `Server.serve(sockets=[inherited_socket(fd)])` of uvicorn. It is not inherited further: a
    copy in a child of the worker would keep the port accepting after the worker has died.
    """
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes: it returns at end of file
    _end()


def _end_if_orphaned(lifeline: int) -> None:
    """At exit: the kernel's end can break the output pipe before the watching thread has a turn."""
    if guard.ended(lifeline):
        _end()


def _end() -> None:
    """End this process and its tree; other threads may be starting processes at this moment."""
    if sys.platform == "linux":
        token = f"{TOKEN}={os.environ.get(TOKEN, '')}"
        helper = [sys.executable, "-I", "-S", guard.__file__, "--end", str(os.getpid()), token]
        with contextlib.suppress(OSError):  # no memory or no process left: then from inside
            os.posix_spawn(helper[0], helper, {})
            time.sleep(guard.KILL_LIMIT)
    guard.end_tree()
