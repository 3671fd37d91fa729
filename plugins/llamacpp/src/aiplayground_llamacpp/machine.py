"""What this computer has: cores to compute with, memory that is free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiplayground.gguf import GgufFile

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


SMALL_MODEL = 32 * 2**20
"""Bytes of a model that one thread computes fastest: several spend their time waiting for each
other, and most of it while other programs are busy (measured: 4,300 tokens/s by one thread, 600 by
two)."""


_BITS = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5,
    "iq4_nl": 4.5,
}  # fmt: skip  # with the scale that each block of a quantised type has


LITTLE_MEMORY = 256 * 2**20
"""Bytes of keys and values that every machine which runs language models has to spare."""


def default_threads(model_size: int) -> int:
    """Return how many threads to compute a model of so many bytes with, at least 1.

    One for each physical core that this process may use: a second one on a core computes nothing
    more, and one beyond a container's quota waits.
    """
    if model_size < SMALL_MODEL:
        return 1
    allowed = _allowed_cpus()
    siblings = (_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") for cpu in allowed)
    return limit_threads(siblings, len(allowed), _read(_CGROUP / "cpu.max"))


def limit_threads(siblings: Iterable[str | None], allowed: int, quota: str | None) -> int:
    """Count cores from the lists of CPUs that share one, and apply a cgroup's `cpu.max`."""
    known = {text.strip() for text in siblings if text}
    count = len(known) or allowed
    period, _, length = (quota or "max").partition(" ")
    if period.isdecimal() and length.strip().isdecimal():
        count = min(count, round(int(period) / int(length)))
    return max(1, count)


def available_memory() -> int | None:
    """Return the bytes of memory that are free for this process, or None if that is unknown."""
    free = meminfo_available(_read(_MEMINFO) or "")
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if free is not None and limit and used and limit.strip().isdecimal():
        free = min(free, int(limit) - int(used))
    return free


def meminfo_available(text: str) -> int | None:
    """Read `MemAvailable` of Linux's /proc/meminfo, in bytes."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def cache_cells(size: int, slots: int, token: int | None) -> int:
    """Return for how many tokens to have memory, when each of `slots` may use up to `size`.

    `token` is the bytes that one takes. All slots can be full where that takes little memory;
    else they share what a single one may use, or what the little memory holds if that is more.
    """
    if token is None:
        return size
    return min(size * slots, max(size, LITTLE_MEMORY // max(token, 1)))


def cache_bytes(
    gguf: GgufFile, context: int, types: tuple[str, str] = ("f16", "f16")
) -> int | None:
    """Return the bytes that keys and values of a context take, or None if unknown.

    `types` are those of keys and of values.

    None also for models whose layers differ or keep less than all: an estimate must never refuse
    what would have fitted.
    """
    facts: Mapping[str, Any] = {
        name: gguf.hyperparameter(name)
        for name in (
            "block_count",
            "embedding_length",
            "attention.head_count",
            "attention.head_count_kv",
        )
    }
    if not all(facts.values()) or _keeps_less(gguf):
        return None
    width = facts["embedding_length"] // facts["attention.head_count"]
    keys = gguf.hyperparameter("attention.key_length") or width
    values = gguf.hyperparameter("attention.value_length") or width
    heads = facts["attention.head_count_kv"]
    bits = keys * _BITS[types[0]] + values * _BITS[types[1]]
    return int(facts["block_count"] * context * heads * bits / 8)


def _keeps_less(gguf: GgufFile) -> bool:
    marks = (
        "attention.sliding_window",
        "attention.kv_lora_rank",
        "ssm.state_size",
        "wkv.head_size",
    )
    return any(gguf.hyperparameter(mark) for mark in marks)


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not Linux, or not this kind of cgroup
        return None
