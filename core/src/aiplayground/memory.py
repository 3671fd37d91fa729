"""How much memory this computer has left, and how much of it a process has taken.

Main memory is what the system calls available, or what the container's limit leaves if that is
less. In both, pages of files that are only cached count as free, weights that are mapped from a
model's file among them: see `private_memory`.

Sources: `Documentation/filesystems/proc.rst` (MemAvailable, RssAnon) and
`Documentation/admin-guide/cgroup-v2.rst` (memory.max, memory.current, memory.stat) of Linux.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path("/")
_NO_LIMIT = 2**60
"""What version 1 of cgroups says where there is no limit is about 2 ** 63."""


def free_memory(root: Path = ROOT) -> int:
    """Return the bytes of main memory that are free for this process. Blocks for a moment."""
    return min([_available(root), *_cgroup_room(root)])


def meminfo_available(text: str) -> int | None:
    """Read `MemAvailable` of Linux's /proc/meminfo, in bytes."""
    return _kib(text, "MemAvailable")


def private_memory(pids: Iterable[int], root: Path = ROOT) -> int:
    """Return the bytes that processes and their descendants have to themselves.

    Pages of files do not count where the system tells them apart, which Linux and Windows do.
    Processes that are gone count nothing. Blocks for a moment.
    """
    import psutil

    total = 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
        total += sum(_private(each, root) for each in family)
    return total


def _private(process: object, root: Path) -> int:
    import psutil

    assert isinstance(process, psutil.Process)
    status = _read(root / f"proc/{process.pid}/status")
    anonymous = _kib(status, "RssAnon")
    if anonymous is not None:
        return anonymous + (_kib(status, "RssShmem") or 0)
    try:
        info = process.memory_info()
    except psutil.Error:
        return 0
    return int(getattr(info, "private", info.rss))


def _available(root: Path) -> int:
    found = meminfo_available(_read(root / "proc/meminfo"))
    if found is not None:
        return found
    import psutil  # slow to import, and only asked where there is no /proc

    return int(psutil.virtual_memory().available)


def _cgroup_room(root: Path) -> Iterator[int]:
    """Yield what each limit leaves that holds for this process, from its group to the root's."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            yield from _rooms(root / "sys/fs/cgroup", path, _V2)
        elif "memory" in controllers.split(","):
            yield from _rooms(root / "sys/fs/cgroup/memory", path, _V1)


_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def _rooms(base: Path, path: str, names: tuple[str, str, tuple[str, str]]) -> Iterator[int]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        folder = base.joinpath(*parts[:depth])
        limit, used = _number(folder / names[0]), _number(folder / names[1])
        if limit is not None and used is not None and limit < _NO_LIMIT:
            cached = _read(folder / "memory.stat")
            yield max(0, limit - used + sum(_stat(cached, name) for name in names[2]))


def _stat(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _kib(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if key == name and words and words[0].isdecimal():
            return int(words[0]) * 1024
    return None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, no such limit, or the process is gone
        return ""
