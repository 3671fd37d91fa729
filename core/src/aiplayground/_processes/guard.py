"""Ends a process tree when the process that owns it is gone; also a program on its own.

The owner holds the write end of a pipe, the *lifeline*, and nobody else does: however the owner
ends, SIGKILL included, the read end then reaches end of file.

Run as `python -I -S guard.py --fd N -- PROGRAM ARG...`, the guard starts a foreign program in its
own process group and stands between it and the kernel. It ends the tree at end of file of
descriptor N, adopts what the program orphans (Linux), and leaves as the program left: with the same
exit code or by the same signal. Exit code 127: no such program; 126: it cannot be executed.

PR_SET_PDEATHSIG is no alternative: it fires when the forking *thread* ends, and spares
grandchildren. Standard library only, and little of it (no pathlib): this file starts with every
program.
"""

from __future__ import annotations

import os
import signal
import sys
import time

KILL_LIMIT = 1.2
"""Seconds that killing may take, before giving up on processes that cannot be killed."""

LEFTOVER_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL for what a program leaves behind when it ends."""

_PR_SET_CHILD_SUBREAPER = 36
_IGNORED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
_RESTORED = (*_IGNORED, "SIGCHLD", "SIGPIPE", "SIGXFSZ")  # Python ignores the last two


def become_subreaper() -> None:
    """Adopt orphaned descendants, so that a daemonised one stays in this tree (Linux only)."""
    if sys.platform != "linux":
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    on, unused = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, on, unused, unused, unused) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def continue_at_end(fd: int) -> None:
    """Have the system send SIGCONT to this process when the lifeline ends (Linux only).

    A stopped process could not see the end of its lifeline, and would outlive its owner.
    """
    if sys.platform != "linux":
        return
    import fcntl

    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGCONT)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def ended(fd: int, timeout: float = 0) -> bool:
    """Whether the lifeline has reached end of file; waits up to `timeout` seconds for it."""
    import select  # has no poll() on Windows, where this is never called

    poll = select.poll()  # select() would refuse descriptors from 1024 on
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(timeout * 1000))


def descendants(root: int, *, zombies: bool = True) -> list[int]:
    """Return the pids of all descendants of `root`, parents first; empty where /proc is not.

    Source: proc(5), /proc/pid/stat: the second field is in parentheses and may contain anything.
    """
    children: dict[int, list[int]] = {}
    ended = set()
    names = os.listdir("/proc") if sys.platform == "linux" else ()  # noqa: PTH208  see module
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  see module
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(parent), []).append(int(name))
        if state in b"ZX" and not zombies:
            ended.add(int(name))
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return [pid for pid in found if pid not in ended]


def carriers(word: str) -> list[int]:
    """Return the pids of the processes that were started with `word`, a NAME=VALUE, in their
    environment; empty where /proc is not. A zombie has no environment.
    """
    found = []
    names = os.listdir("/proc") if sys.platform == "linux" else ()  # noqa: PTH208  see module
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123  see module
                environ = file.read()
        except OSError:
            continue  # it ended meanwhile, or is not ours to look into
        if word.encode() in environ.split(b"\0"):
            found.append(int(name))
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to each process; one that has ended or is not ours to signal is passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def reap(program: int | None = None) -> int | None:
    """Collect every child that has ended; return the wait status of `program` if it is one."""
    status = None
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            status = found


def await_descendants(limit: float, number: int | None = None) -> bool:
    """Wait `limit` seconds for all descendants to end, sending `number` to them meanwhile.

    Only a loop ends a tree that still forks: between the look and the signal a new one may come.
    """
    deadline = time.monotonic() + limit
    while True:
        reap()
        pids = descendants(os.getpid())
        if not pids or time.monotonic() > deadline:
            return not pids
        if number is not None:
            signal_all(pids, number)
        time.sleep(0.002)


def end_tree() -> None:
    """Kill all descendants, then the own process group with this process; does not return.

    For a process with one thread; see `end_from_outside`.
    """
    await_descendants(KILL_LIMIT, signal.SIGKILL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)  # started by hand in a shell's group: spare the others


def end_from_outside(root: int, token: str) -> None:
    """Kill the tree of the parent process `root`, a subreaper with threads that may fork meanwhile.

    It is stopped first, so that it neither forks nor lets go of what it adopts until all is dead.
    If it has ended by itself, its group and whatever carries `token` (NAME=VALUE) are still found.
    """
    if os.getppid() == root:
        os.kill(root, signal.SIGSTOP)
    deadline = time.monotonic() + KILL_LIMIT
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:  # twice: one may be born during the look
        left = {*descendants(root, zombies=False), *carriers(token)} - {root, os.getpid()}
        quiet = 0 if left else quiet + 1
        signal_all(list(left), signal.SIGKILL)
        time.sleep(0.002)
    if os.getppid() == root:
        os.kill(root, signal.SIGKILL)
    if os.getpgrp() == root:
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _start(argv: list[str]) -> int:
    """Start the program with default signal dispositions; return its pid or exit 126 or 127."""
    default = [getattr(signal, name) for name in _RESTORED]
    try:
        return os.posix_spawnp(argv[0], argv, os.environ, setsigmask=(), setsigdef=default)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        verb = "find" if missing else "execute"
        sys.stderr.write(f"cannot {verb} {argv[0]!r}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127 if missing else 126)


def _close_all_but(keep: set[int]) -> None:
    """Close every other descriptor: a copy of a dead server's socket would accept, and hang."""
    for fd in [int(name) for name in os.listdir("/dev/fd")]:  # noqa: PTH208  see module
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that listed the folder


def _wake_on_child() -> int:
    """Return a descriptor that becomes readable whenever a child has ended."""
    wake, write = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake


def _supervise(program: int, lifeline: int, wake: int) -> int:
    """Wait for the program and return its wait status; end the tree if the lifeline ends first."""
    import select

    poll = select.poll()
    poll.register(lifeline, select.POLLIN | select.POLLHUP)
    poll.register(wake, select.POLLIN)
    while (status := reap(program)) is None:
        ready = [fd for fd, _ in poll.poll()]
        if lifeline in ready:
            end_tree()
        if wake in ready:
            os.read(wake, 4096)
    return status


def _end_leftovers() -> None:
    """End what the program left behind: politely first, then for good."""
    signal_all(descendants(os.getpid()), signal.SIGTERM)
    if sys.platform != "linux":
        os.killpg(0, signal.SIGTERM)  # ignored here; the kernel kills the group afterwards
    if not await_descendants(LEFTOVER_GRACE):
        await_descendants(KILL_LIMIT, signal.SIGKILL)


def _leave_as(status: int) -> None:
    """End this process with the wait status of the program; does not return."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has written its own
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


def main(argv: list[str]) -> None:
    """Run the guard; does not return.

    `--fd N [--unset NAME | --set NAME=VALUE]... -- PROGRAM ARG...`, or `--end PID TOKEN` for a
    worker, which cannot see to its own end.
    """
    if argv[0] == "--end":
        end_from_outside(int(argv[1]), argv[2])
    split = argv.index("--")
    options = list(zip(argv[:split:2], argv[1:split:2], strict=True))
    lifeline = next(int(value) for name, value in options if name == "--fd")
    for name, value in options:
        if name == "--unset":
            os.environ.pop(value, None)
        elif name == "--set":
            key, _, setting = value.partition("=")
            os.environ[key] = setting
    os.set_inheritable(lifeline, False)
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    become_subreaper()
    continue_at_end(lifeline)
    if ended(lifeline):
        end_tree()
    program = _start(argv[split + 1 :])
    _close_all_but({0, 1, 2, lifeline})
    status = _supervise(program, lifeline, _wake_on_child())
    _end_leftovers()
    _leave_as(status)


if __name__ == "__main__":
    main(sys.argv[1:])
