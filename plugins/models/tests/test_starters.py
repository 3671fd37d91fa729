"""The catalogue of models to start with, and which of them are suggested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiplayground.cli._app import App
from aiplayground.cli.root import root
from aiplayground_models.starters import DISK_RESERVE, PURPOSES, read_starters, suggest

GB = 10**9
STARTERS = read_starters()


@pytest.mark.parametrize("starter", STARTERS, ids=lambda each: each.id)
def test_an_entry_is_whole(starter: object) -> None:
    each = next(one for one in STARTERS if one is starter)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", each.repo)
    assert each.files
    assert all(name.endswith(".gguf") for name in each.files)
    assert each.good_for
    assert set(each.good_for) <= set(PURPOSES)
    assert ("vision" in each.good_for) == (len(each.files) == 2)
    assert 10**8 < each.size < each.memory
    assert each.context >= 2048
    assert each.licence


def test_ids_are_unique_and_every_purpose_is_served() -> None:
    assert len({each.id for each in STARTERS}) == len(STARTERS) >= 12
    assert {purpose for each in STARTERS for purpose in each.good_for} == set(PURPOSES)


@pytest.mark.parametrize("purpose", [None, *PURPOSES])
@pytest.mark.parametrize("memory", [0, 2 * GB, 8 * GB, 64 * GB])
def test_what_fits_comes_first_and_the_most_capable_on_top(
    purpose: str | None, memory: int
) -> None:
    found = suggest(STARTERS, memory=memory, disk=10**12, purpose=purpose)
    assert [each.fits for each in found] == sorted((each.fits for each in found), reverse=True)
    fitting = [each.starter.memory for each in found if each.fits]
    assert fitting == sorted(fitting, reverse=True)
    assert all(size <= memory for size in fitting)
    assert all(purpose is None or purpose in each.starter.good_for for each in found)


def test_the_disk_counts_too() -> None:
    small = min(STARTERS, key=lambda each: each.size)
    found = suggest([small], memory=64 * GB, disk=small.size + DISK_RESERVE - 1)
    assert not found[0].fits
    assert "disk" in found[0].why
    assert suggest([small], memory=64 * GB, disk=small.size + DISK_RESERVE)[0].fits


def test_the_command_prints_what_to_type(tmp_path: Path) -> None:
    args = ["--home", str(tmp_path), "models", "suggest", "--for", "chat", "--all"]
    told = CliRunner().invoke(root, args, obj=App(), catch_exceptions=False)
    assert told.exit_code == 0
    assert "aipg pull Qwen/Qwen3-4B-GGUF Qwen3-4B-Q4_K_M.gguf" in told.output
    listed = CliRunner().invoke(root, [*args, "--json"], obj=App(), catch_exceptions=False)
    models = json.loads(listed.output)["models"]
    assert {"id", "command", "fits", "why", "licence", "size"} <= set(models[0])
