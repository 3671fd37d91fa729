"""How much memory is free: read from recorded files, and from this computer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiplayground.memory import free_memory, meminfo_available, private_memory

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   4096 kB\n"}
V2 = {**MEMINFO, "proc/self/cgroup": "0::/user/app\n"}


def test_memory_is_read_in_bytes() -> None:
    assert meminfo_available("MemTotal: 9 kB\nMemAvailable:   12 kB\n") == 12 * 1024
    assert meminfo_available("") is None
    assert meminfo_available("MemAvailable: odd\n") is None


def test_without_a_limit_it_is_what_the_system_says(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, MEMINFO)) == 4 * MIB
    assert free_memory(write(tmp_path, V2)) == 4 * MIB


@pytest.mark.parametrize("group", ["user/app", "user", ""])
def test_the_limit_of_any_group_above_holds(tmp_path: Path, group: str) -> None:
    folder = f"sys/fs/cgroup/{group}"
    limit = {
        f"{folder}/memory.max": f"{3 * MIB}\n",
        f"{folder}/memory.current": f"{2 * MIB}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {MIB // 2}\nactive_file {MIB // 4}\n",
    }
    # Cached pages of files are given back when memory is needed.
    assert free_memory(write(tmp_path, {**V2, **limit})) == MIB + MIB // 2 + MIB // 4


def test_no_limit_and_a_limit_that_is_used_up(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user/app/memory"
    unlimited = {f"{group}.max": "max\n", f"{group}.current": "7\n"}
    assert free_memory(write(tmp_path, {**V2, **unlimited})) == 4 * MIB
    assert free_memory(write(tmp_path, {f"{group}.max": "5\n"})) == 0


def test_version_1_of_groups(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/box/memory"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu,memory:/box\n0::/\n",
        f"{group}.limit_in_bytes": str(2 * MIB),
        f"{group}.usage_in_bytes": str(MIB),
    }
    assert free_memory(write(tmp_path, files)) == MIB
    files[f"{group}.limit_in_bytes"] = str(2**63 - 4096)
    assert free_memory(write(tmp_path, files)) == 4 * MIB


def test_this_computer() -> None:
    assert free_memory() > 0
    assert private_memory([os.getpid()]) > MIB
    assert private_memory([2**22 + 1]) == 0
