"""Supervised processes: each child leads a tree that the kernel owns, and that ends with it.

POSIX: an own session and process group, and a lifeline: a pipe whose write end only the kernel
holds. Our own workers watch its read end (`serving.parent`); a foreign program runs under a guard
that does (`guard`). Windows: a kill-on-close job object (`windows`).

Everything here happens in callbacks of the loop that launched the child, without tasks, so that
the cancellation of a caller can interrupt nothing half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import guard
from .exits import watch_exit
from .identity import Marked, carriers, kill_marked, marked_descendants
from .output import OutputReader
from .spawn import Spawned, spawn

if TYPE_CHECKING:
    import psutil

    from .ledger import Ledger

DRAIN_LIMIT = 1.0
"""Seconds after a child's exit that its output may be held open by something that escaped."""

KILL_LIMIT = 5.0
"""Seconds from SIGKILL to giving up on a child, which only an uninterruptible wait can reach."""

CUT_LIMIT = 1.0
"""Seconds that a guard or worker has to end its own tree, before the kernel does it from outside.

From inside it is exact: the subreaper loses nothing, and if the kernel is killed just then, the
ending goes on. From outside, what forks at that moment escapes until it is swept up.
"""

_CUT_LIMIT_NOW = 0.3  # at the interpreter's exit, for each child
_KILL_LIMIT_NOW = 1.5
_SWEEP_INTERVAL = 0.01
_SWEEP_LIMIT = 1.0


class Process:
    """A child tree that the kernel owns. Made by `launch`; belongs to the loop that ran it.

    `pid`: the direct child's, which is its process group's too (POSIX). `started`: epoch seconds.
    `returncode`: as in `subprocess`, negative for a signal; None while it runs.
    """

    def __init__(self, spawned: Spawned, on_line: Callable[[str], None]) -> None:
        self.pid = spawned.popen.pid
        self.started = time.time()
        self.returncode: int | None = None
        self._spawned = spawned
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._kill_timer: asyncio.TimerHandle | None = None
        self._backstop: asyncio.TimerHandle | None = None
        self._snapshot: set[Marked] = set()
        self._killing = False
        self._swept = False
        self._reader = OutputReader(spawned.output, on_line, self._settle)
        spawned.output = -1
        try:
            self._unwatch = watch_exit(spawned.popen, self._exited)
        except BaseException:
            self._reader.close()
            raise

    @classmethod
    async def launch(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        guarded: bool,
        on_line: Callable[[str], None],
        ledger: Ledger | None = None,
    ) -> Process:
        """Start `argv` with exactly `env`, plus `AIPG_CHILD_TOKEN` and, unguarded, the lifeline.

        `guarded=False` is for a worker that calls `serving.parent.watch_parent` at its start;
        anything else runs guarded. `pass_fds` are inherited under the same numbers (POSIX only);
        the caller closes its own copies after this returns or raises. `on_line` gets each line
        of stdout and stderr, in the loop.

        Never suspends, so there is nothing for a cancellation to leave behind. Raises OSError where
        the program, or with `guarded` the folder `cwd`, is missing; a missing program shows as exit
        code 127 under the guard.
        """
        spawned = spawn(argv, env, cwd, pass_fds, guarded)
        try:
            if ledger is not None:
                ledger.record(spawned.popen.pid, spawned.token)
                spawned.ledger = ledger
            return cls(spawned, on_line)
        except BaseException:
            spawned.abandon()
            raise

    async def wait(self) -> int:
        """Return the exit code of the direct child, once its last output is delivered."""
        return await asyncio.shield(self._done)

    async def end(self, grace: float) -> int:
        """End the whole tree and return the exit code: SIGTERM, `grace` seconds, then SIGKILL.

        Any number of callers share one ending; the shortest grace counts. It goes on when a caller
        is cancelled. Raises TimeoutError when even SIGKILL does not end the child.
        """
        self._begin_ending(grace)
        limit = max(grace, 0) + KILL_LIMIT
        try:
            return await asyncio.wait_for(asyncio.shield(self._done), limit)
        except TimeoutError:
            raise TimeoutError(
                f"process {self.pid} has not ended {KILL_LIMIT:g} s after it was killed; it may "
                "hang in a device driver: look at its state in the system's process list"
            ) from None

    def kill_now(self) -> None:
        """End the tree without the loop, as for the interpreter's exit; blocks for 2 s at most."""
        popen = self._spawned.popen
        if popen.returncode is None:
            self._cut()
            self._poll_until_exit(_CUT_LIMIT_NOW)
            self._kill_tree()
            self._poll_until_exit(_KILL_LIMIT_NOW)
            self._sweep_once()
        if self._loop.is_closed():  # else the loop sees the exit, and does the rest
            self.returncode = popen.returncode
            self._reader.close()
            self._unwatch()
            self._spawned.release()

    def tree(self) -> list[psutil.Process]:
        """Return the child and all its descendants that live now; empty once it has ended."""
        import psutil

        if self._spawned.popen.returncode is not None:
            return []
        try:
            child = psutil.Process(self.pid)
            return [child, *child.children(recursive=True)]
        except psutil.Error:
            return []

    def cpu_seconds(self) -> float:
        """Return the user and system time of the whole tree, with what its ended members used."""
        import psutil

        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                total += sum(process.cpu_times()[:4])
        return total

    def _begin_ending(self, grace: float) -> None:
        if self._killing or self._spawned.popen.returncode is not None:
            return
        if self._kill_timer is None and grace > 0:
            self._snapshot.update(marked_descendants(self.pid))
            self._spawned.group.terminate()
        when = self._loop.time() + max(grace, 0)
        if self._kill_timer is None or when < self._kill_timer.when():
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            self._kill_timer = self._loop.call_at(when, self._cut_then_kill)

    def _poll_until_exit(self, limit: float) -> None:
        deadline = time.monotonic() + limit
        while self._spawned.popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)

    def _cut(self) -> None:
        """Have the tree end itself, by the end of the lifeline."""
        self._snapshot.update(marked_descendants(self.pid))
        self._spawned.cut()

    def _cut_then_kill(self) -> None:
        self._killing = True
        self._cut()
        self._kill_timer = self._loop.call_later(CUT_LIMIT, self._kill_tree)

    def _kill_tree(self) -> None:
        """Kill descendants before the child: once it is gone they are nobody's."""
        if self._spawned.popen.returncode is None:
            self._snapshot.update(marked_descendants(self.pid))
            kill_marked(self._snapshot)
            self._spawned.group.kill()

    def _exited(self) -> None:
        """The child has ended but is not reaped: its pid still names its group and no other."""
        if self.returncode is not None:
            return
        popen = self._spawned.popen
        if popen.returncode is None:  # else `kill_now` has reaped it
            self._spawned.group.kill()
        self.returncode = popen.wait(KILL_LIMIT)  # returns at once
        self._unwatch()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._backstop = self._loop.call_later(DRAIN_LIMIT, self._reader_overdue)
        self._sweep(self._loop.time() + _SWEEP_LIMIT)

    def _sweep(self, deadline: float) -> None:
        if self._sweep_once() and self._loop.time() < deadline:
            self._loop.call_later(_SWEEP_INTERVAL, self._sweep, deadline)
            return
        self._swept = True
        self._settle()

    def _sweep_once(self) -> bool:
        """Kill what outlived the child; return whether there was anything."""
        kill_marked(self._snapshot)
        self._snapshot.clear()
        left = carriers(self._spawned.token)
        if left:
            guard.signal_all(left, signal.SIGKILL)
        return bool(left)

    def _reader_overdue(self) -> None:
        self._reader.close()
        self._settle()

    def _settle(self) -> None:
        """Finish when the child has ended, the tree is swept and the output is at its end."""
        if self.returncode is None or not self._swept or not self._reader.ended:
            return
        if self._backstop is not None:
            self._backstop.cancel()
        if not self._done.done():
            self._done.set_result(self.returncode)
        self._spawned.release()  # may raise, if the ledger's disk is full: nobody waits any more
