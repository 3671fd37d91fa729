"""Starting a child: its group, its lifeline, its output pipe, and who owns the descriptors."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiplayground.serving.protocol import PARENT_FD_VARIABLE

from . import forks, guard
from .identity import TOKEN
from .ledger import Ledger


class Group(Protocol):
    """All processes of one child that the system can address at once."""

    def terminate(self) -> None:
        """Ask them to end."""

    def kill(self) -> None:
        """End them; only while the child is not reaped."""

    def close(self) -> None:
        """Give the group up; idempotent."""


@dataclass(slots=True)
class Spawned:
    """A running child and what the kernel holds for it."""

    popen: subprocess.Popen[bytes]
    group: Group
    token: str
    output: int
    """Read end of the pipe that is its stdout and stderr; -1 once a reader owns it."""
    lifeline: int = -1
    """Write end of its lifeline; -1 on Windows and after `cut`."""
    ledger: Ledger | None = None

    def cut(self) -> None:
        """Close the lifeline, or the job object: whoever watches it ends the tree; idempotent."""
        self.group.close()
        lifeline, self.lifeline = self.lifeline, -1
        if lifeline >= 0:
            forks.close(lifeline)

    def release(self) -> None:
        """Let go of the lifeline and the ledger's record after the child's end; idempotent."""
        self.cut()
        ledger, self.ledger = self.ledger, None
        if ledger is not None:
            ledger.forget(self.popen.pid)

    def abandon(self) -> None:
        """End a child that nobody will supervise."""
        if self.popen.returncode is None:
            self.group.kill()
            self.popen.wait(5)
        self.release()
        if self.output >= 0:
            os.close(self.output)


class PosixGroup:
    """The process group that a child leads."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def terminate(self) -> None:
        """SIGTERM, and SIGCONT so that a stopped process can act on it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""

    def _signal(self, number: int) -> None:
        # macOS answers EPERM for a group that has only zombies left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    pass_fds: Sequence[int],
    guarded: bool,
) -> Spawned:
    """Start a child; raise OSError where that fails, with nothing left behind."""
    token = uuid.uuid4().hex
    env = {**env, TOKEN: token}
    read, write = os.pipe()
    try:
        if sys.platform == "win32":
            from . import windows

            popen, job = windows.spawn(argv, env, cwd, write)
            return Spawned(popen, job, token, read)
        return _spawn_posix(argv, env, cwd, pass_fds, guarded, (read, write))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)


def _spawn_posix(
    argv: Sequence[str],
    env: dict[str, str],
    cwd: Path | None,
    pass_fds: Sequence[int],
    guarded: bool,
    pipe: tuple[int, int],
) -> Spawned:
    watched, lifeline = os.pipe()
    forks.close_in_forks(lifeline)
    try:
        if guarded:
            argv = guard_command(argv, env, watched)
        else:
            env[PARENT_FD_VARIABLE] = str(watched)
        # A session of its own is a group of its own too, and has no terminal to be stopped by.
        popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=pipe[1],
            stderr=subprocess.STDOUT,
            pass_fds=(*pass_fds, watched),
            start_new_session=True,
        )
    except BaseException:
        forks.close(lifeline)
        raise
    finally:
        os.close(watched)
    return Spawned(popen, PosixGroup(popen.pid), env[TOKEN], pipe[0], lifeline)


def guard_command(argv: Sequence[str], env: Mapping[str, str], lifeline: int) -> list[str]:
    """Return the command line that runs `argv` under the guard."""
    python = [sys.executable, "-I", "-S", guard.__file__, "--fd", str(lifeline)]
    # Python changes it on its way up in the C locale (PEP 538); the program is to see its `env`.
    given = env.get("LC_CTYPE")
    locale = ["--unset", "LC_CTYPE"] if given is None else ["--set", f"LC_CTYPE={given}"]
    return [*python, *locale, "--", *argv]
