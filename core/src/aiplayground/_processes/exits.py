"""Being told that a child has ended, without reaping it and without a handler for SIGCHLD.

An unreaped child keeps its pid, so its group can still be killed without hitting a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable


def watch_exit(popen: subprocess.Popen[bytes], callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` in the running loop once the child has ended; return what stops the watch.

    The loop watches a pidfd where the system has them (Linux 5.3); else a thread waits.
    """
    loop = asyncio.get_running_loop()
    if sys.platform == "linux":
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError:  # an old system, a sandbox that forbids it, or no descriptor left
            pidfd = -1
        if pidfd >= 0:
            loop.add_reader(pidfd, callback)
            return _Unwatch(loop, pidfd)
    arguments = (popen, loop, callback)
    threading.Thread(target=_wait, args=arguments, name="child-exit", daemon=True).start()
    return lambda: None


class _Unwatch:
    def __init__(self, loop: asyncio.AbstractEventLoop, pidfd: int) -> None:
        self._loop = loop
        self._pidfd = pidfd

    def __call__(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(pidfd)
        os.close(pidfd)


def _wait(
    popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, callback: Callable[[], None]
) -> None:
    _await_exit(popen)
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return  # the loop is closed: nobody is left to tell


def _await_exit(popen: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        popen.wait()  # a handle keeps the pid, so that waiting is no reaping
    elif sys.platform == "darwin":
        import select  # os.waitid came to macOS with Python 3.13

        exit_event = select.kevent(
            popen.pid,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):
            queue.control([exit_event], 1)  # no such process: it has ended already
    else:
        try:
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return  # reaped meanwhile by `Process.kill_now`
