"""What was read of models, from one process to the next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import model_files as files
from tests.gguf_files import MODEL, Gguf

from aiplayground.gguf import GgufFile, read_gguf
from aiplayground.models import ModelIndex, ModelScan, _cache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def counting(path: Path) -> GgufFile:
        found.append(path.name)
        return read_gguf(path)

    monkeypatch.setattr("aiplayground.models._index.read_gguf", counting)
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models" / "index.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    Gguf().write(root / "a.gguf")
    files.write(root / "bad.gguf", b"junk")
    files.safetensors(root / "l.safetensors")
    files.transformers(root / "t")
    return root


def look(root: Path, cache: Path) -> ModelScan:
    """List as another process does."""
    return ModelIndex(cache).scan([root])


def test_another_process_reads_nothing_again(root: Path, cache: Path, reads: list[str]) -> None:
    first = look(root, cache)
    assert sorted(reads) == ["a.gguf", "bad.gguf"]
    assert [model.name for model in first.models] == ["a", "l", "t"]
    assert look(root, cache) == first
    assert len(reads) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_bytes(Gguf({**MODEL, "general.name": "Longer"}).to_bytes()),
        lambda path: Gguf().write(path.with_name("new")).replace(path),
    ],
)
def test_a_changed_file_is_read_again(
    root: Path, cache: Path, reads: list[str], change: Callable[[Path], object]
) -> None:
    look(root, cache)
    reads.clear()
    change(root / "a.gguf")
    look(root, cache)
    assert reads == ["a.gguf"]
    look(root, cache)
    assert reads == ["a.gguf"]


def test_another_file_of_the_same_size_and_time_is_noticed(
    root: Path, cache: Path, reads: list[str]
) -> None:
    path = root / "a.gguf"
    os.utime(path, ns=(5, 5))
    look(root, cache)
    other = Gguf().write(root.parent / "other")
    os.utime(other, ns=(5, 5))
    other.replace(path)
    reads.clear()
    look(root, cache)
    assert reads == ["a.gguf"]


def _entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    def change(body: dict[str, Any]) -> None:
        body["files"][0][changes["at"]] = changes["to"]

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body.update(layout=[0]),
        lambda body: body.update(files=5),
        lambda body: body.pop("files"),
        _entry(at=1, to="large"),
        _entry(at=4, to=None),
        _entry(at=4, to=["llm"]),
        _entry(at=4, to=[1] * 13),
    ],
)
def test_a_damaged_cache_is_ignored_and_written_anew(
    root: Path, cache: Path, reads: list[str], damage: Callable[[dict[str, Any]], object]
) -> None:
    first = look(root, cache)
    body = json.loads(cache.read_text())
    damage(body)
    cache.write_text(json.dumps(body))
    reads.clear()
    assert look(root, cache) == first
    assert sorted(reads) == ["a.gguf", "bad.gguf"]
    reads.clear()
    assert look(root, cache) == first
    assert reads == []


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}"])
def test_what_is_no_cache_is_ignored(root: Path, cache: Path, data: bytes) -> None:
    files.write(cache, data)
    assert len(look(root, cache).models) == 3
    assert json.loads(cache.read_text())["files"]


def test_a_cache_that_cannot_be_written_hinders_nothing(root: Path, cache: Path) -> None:
    files.write(cache.parent)  # a file where its folder belongs
    index = ModelIndex(cache)
    assert len(index.scan([root]).models) == 3
    assert isinstance(index.trouble, OSError)
    assert len(index.scan([root]).models) == 3


def test_it_is_bounded_and_leaves_nothing_beside(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cache, "MAX_ENTRIES", 2)
    look(root, cache)
    assert len(json.loads(cache.read_text())["files"]) == 2
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_folders_that_are_away_stay_known(
    root: Path, cache: Path, tmp_path: Path, reads: list[str]
) -> None:
    look(root, cache)
    Gguf().write(tmp_path / "other" / "b.gguf")
    look(tmp_path / "other", cache)
    reads.clear()
    look(root, cache)
    assert reads == []


def test_what_may_pass_is_not_kept(root: Path, cache: Path, monkeypatch: Any) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("aiplayground.models._index.read_gguf", read_gguf)
        patch.setattr(Path, "open", denied)
        assert {each.reason for each in look(root, cache).problems} == {"unreadable"}
    assert len(look(root, cache).models) == 3
