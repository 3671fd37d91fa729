"""What the machine has, and what a model needs."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from aiplayground.gguf import GgufFile
from aiplayground_llamacpp.load import part_paths
from aiplayground_llamacpp.machine import (
    DEFAULT_CONTEXT,
    LITTLE_MEMORY,
    MIN_CONTEXT,
    cache_bytes,
    cache_cells,
    context_size,
    default_threads,
    limit_threads,
)


@pytest.mark.parametrize(
    ("siblings", "allowed", "quota", "threads"),
    [
        (["0,4", "1,5", "0,4", "1,5"], 4, None, 2),
        (["0", "1", "2"], 3, "max 100000", 3),
        ([None, None], 2, None, 2),
        (["0", "1", "2", "3"], 4, "150000 100000", 2),
        (["0"], 1, "10000 100000", 1),
        ([], 0, "odd", 1),
    ],
)
def test_threads(siblings: list[str | None], allowed: int, quota: str | None, threads: int) -> None:
    assert limit_threads(siblings, allowed, quota) == threads


def test_this_machine_has_something() -> None:
    assert default_threads(10**9) >= 1
    assert default_threads(10**6) == 1


def gguf(kind: str, fields: dict[str, Any]) -> GgufFile:
    metadata = {"general.architecture": kind} | {f"{kind}.{k}": v for k, v in fields.items()}
    return GgufFile(Path("x"), 0, 3, 32, 0, MappingProxyType(metadata), ())


SIZES: dict[str, Any] = {
    "block_count": 4,
    "embedding_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}


def test_the_size_of_a_context() -> None:
    assert cache_bytes(gguf("llama", SIZES), 10) == 4 * 10 * 2 * (32 + 32) * 2
    wide: dict[str, Any] = {**SIZES, "attention.key_length": 64, "attention.value_length": 8}
    assert cache_bytes(gguf("llama", wide), 10) == 4 * 10 * 2 * (64 + 8) * 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**SIZES, "attention.sliding_window": 512},
        {**SIZES, "attention.head_count_kv": (1, 2)},
        {**SIZES, "attention.head_count_kv": (1, 2, 1, 2)},
        {**SIZES, "ssm.state_size": 8, "ssm.inner_size": 8},
    ],
)
def test_what_cannot_be_estimated_is_not(fields: dict[str, Any]) -> None:
    assert cache_bytes(gguf("gemma2", fields), 10) is None


@pytest.mark.parametrize(
    ("wanted", "trained", "size"),
    [
        (0, 131072, DEFAULT_CONTEXT),
        (0, 512, 512),
        (0, 0, DEFAULT_CONTEXT),
        (8192, 512, 8192),
        (1, 512, MIN_CONTEXT),
    ],
)
def test_context_size(wanted: int, trained: int, size: int) -> None:
    assert context_size(wanted, trained) == size


def test_the_parts_of_a_split_model() -> None:
    first = Path("m/big-00001-of-00003.gguf")
    names = [path.name for path in part_paths(first, 3)]
    assert names == [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert part_paths(Path("m.gguf"), 1) == [Path("m.gguf")]


@pytest.mark.parametrize(
    ("token", "cells"),
    [
        (None, 4096),  # not known: no more than one may use
        (256, 4096 * 8),
        (LITTLE_MEMORY // 4096, 4096),
        (LITTLE_MEMORY // 8192, 8192),
        (10**9, 4096),
    ],
)
def test_slots_share_the_memory_of_a_context(token: int | None, cells: int) -> None:
    assert cache_cells(4096, 8, token) == cells
