"""Which projector a model gets, and which files are refused before native code opens them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.tiny_model import WIDTH, _pair, write_model
from plugins.llamacpp.tests.tiny_parts import (
    FLOAT64,
    SIDE,
    picture,
    projector_pairs,
    projector_tensors,
    shown,
    text_pair,
    write_adapter,
    write_gguf,
    write_projector,
)
from plugins.llamacpp.tests.workers import Launch

from aiplayground.errors import InvalidSettings
from aiplayground.gguf import read_gguf
from aiplayground.models import find_models
from aiplayground_llamacpp.projector import beside, find_projector, may_be_projector, unsuitable


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf")


def silent(line: str) -> None:
    raise AssertionError(line)


def find(option: str | None, model: Path, report: Callable[[str], None] = silent) -> Path | None:
    return find_projector(option, "tiny", read_gguf(model), [model], report)


def number(name: str, value: int, kind: int = 4) -> bytes:
    return _pair(f"clip.vision.{name}", kind, struct.pack("<I" if kind == 4 else "<q", value))


WRONG: list[tuple[str, dict[str, bytes]]] = [
    ("not a projector", {"architecture": text_pair("general.architecture", "llama")}),
    ("not a projector", {"sees": _pair("clip.has_vision_encoder", 7, b"\0")}),
    ("not a projector", {"sees": text_pair("clip.has_vision_encoder", "yes")}),
    ("int64 for clip.vision.image_size", {"image_size": number("image_size", SIDE, 11)}),
    ("string for clip.vision.patch_size", {"patch_size": text_pair("clip.vision.patch_size", "8")}),
    ("0 for clip.vision.patch_size", {"patch_size": number("patch_size", 0)}),
    ("0 for clip.vision.attention", {"attention.head_count": number("attention.head_count", 0)}),
    ("4294967295 for clip.vision.block_count", {"block_count": number("block_count", 2**32 - 1)}),
    ("None for clip.vision.embedding_length", {"embedding_length": text_pair("x", "y")}),
    (
        "float64 for clip.vision.attention.layer_norm_epsilon",
        {
            "epsilon": _pair(
                "clip.vision.attention.layer_norm_epsilon", FLOAT64, struct.pack("<d", 1e-5)
            )
        },
    ),
    ("uint32 for general.name", {"name": _pair("general.name", 4, struct.pack("<I", 1))}),
]


@pytest.mark.parametrize(("words", "pairs"), WRONG)
def test_what_is_no_projector_is_refused(
    tmp_path: Path, model: Path, words: str, pairs: dict[str, bytes]
) -> None:
    path = write_gguf(tmp_path / "wrong.gguf", projector_pairs(**pairs), projector_tensors())
    with pytest.raises(InvalidSettings, match=words) as caught:
        find(str(path), model)
    assert "'models.tiny.projector': wrong.gguf" in caught.value.message


def test_a_projector_for_another_width_is_refused(tmp_path: Path, model: Path) -> None:
    tensors = projector_tensors(width=WIDTH * 2)
    path = write_gguf(tmp_path / "wide.gguf", projector_pairs(), tensors)
    with pytest.raises(InvalidSettings, match=r"of 128 numbers, and this model's have 64"):
        find(str(path), model)


def test_missing_and_broken_files(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(write_projector(tmp_path / "mmproj.gguf").read_bytes()[:-9])
    with pytest.raises(InvalidSettings, match="truncated"):
        find("broken.gguf", model)
    with pytest.raises(InvalidSettings, match="does not exist"):
        find("nowhere.gguf", model)
    with pytest.raises(InvalidSettings, match="not a projector"):
        find("tiny.gguf", model)


def test_the_projector_beside_a_model_is_the_one_that_listings_name(
    tmp_path: Path, model: Path
) -> None:
    write_model(tmp_path / "other.gguf")
    write_adapter(tmp_path / "adapter.gguf", model)
    assert find(None, model) is None
    path = write_projector(tmp_path / "mmproj-tiny-f16.gguf")
    write_projector(tmp_path / "mmproj-other.gguf")
    listed = {each.name: each.projector for each in find_models([tmp_path]).models}
    assert listed["tiny"] == path == beside([model]) == find(None, model)
    assert listed["other"] == beside([tmp_path / "other.gguf"]) == tmp_path / "mmproj-other.gguf"


def test_an_empty_name_is_no_projector(tmp_path: Path, model: Path) -> None:
    write_projector(tmp_path / "mmproj.gguf")
    assert find("", model) is None


def test_one_that_only_happens_to_lie_there_and_cannot_be_used_is_left(
    tmp_path: Path, model: Path
) -> None:
    pairs = projector_pairs(patch_size=number("patch_size", 0))
    write_gguf(tmp_path / "mmproj.gguf", pairs, projector_tensors())
    lines: list[str] = []
    assert find(None, model, lines.append) is None
    assert "0 for clip.vision.patch_size" in lines[0]


def test_a_projector_says_its_width_in_its_last_tensor(tmp_path: Path, model: Path) -> None:
    """LLaVA's first ones have CLIP's own width in the key that is meant for it."""
    pairs = projector_pairs(projection_dim=number("projection_dim", 768))
    path = write_gguf(tmp_path / "mmproj.gguf", pairs, projector_tensors())
    file = read_gguf(path)
    assert file.projection_length == WIDTH
    assert unsuitable(file, read_gguf(model)) is None
    assert find(None, model) == path
    assert read_gguf(model).projection_length is None


def test_a_look_at_the_first_bytes_spares_large_models(tmp_path: Path, model: Path) -> None:
    assert may_be_projector(write_projector(tmp_path / "mmproj.gguf"))
    assert not may_be_projector(model)
    assert not may_be_projector(tmp_path / "nowhere.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")  # nobody waits for who may write into it
    assert not may_be_projector(tmp_path / "pipe.gguf")
    late = tmp_path / "late.gguf"
    late.write_bytes(b"GGUF" + bytes(600))
    assert may_be_projector(late)


@pytest.mark.engine
def test_a_worker_survives_wrong_projectors(launch: Launch, tmp_path: Path, model: Path) -> None:
    write_gguf(
        tmp_path / "unknown.gguf",
        projector_pairs("no such kind"),
        projector_tensors(),
    )
    tensors = projector_tensors()
    del tensors["v.blk.1.ffn_up.weight"]
    write_gguf(tmp_path / "partial.gguf", projector_pairs(), tensors)
    names = {"missing": "nowhere.gguf", "unknown": "unknown.gguf", "partial": "partial.gguf"}
    models: dict[str, Any] = {name: {"projector": path} for name, path in names.items()}
    models["good"] = {"projector": str(write_projector(tmp_path / "mmproj.gguf"))}
    worker = launch("--settings", json.dumps({"models": models}))
    for name in names:
        answer = worker.load(model, name)
        assert not answer.is_success
        assert names[name] in answer.json()["message"], answer.text
    assert worker.load(model, "good").is_success
    answer = worker.chat(model="good", messages=shown("a", picture(1), "b"), max_tokens=2)
    assert answer.is_success, answer.text


@pytest.mark.engine
def test_a_bad_projector_beside_a_model_does_not_keep_it_from_writing(
    launch: Launch, tmp_path: Path, model: Path
) -> None:
    tensors = projector_tensors()
    del tensors["v.blk.1.ffn_up.weight"]
    write_gguf(tmp_path / "mmproj.gguf", projector_pairs(), tensors)
    worker = launch("--model", str(model), "--name", "tiny")
    assert worker.chat(max_tokens=2).is_success
    assert "no images: llama.cpp could not load mmproj.gguf" in worker.stderr
    answer = worker.chat(messages=shown("a", picture(1)), max_tokens=2)
    assert answer.status_code == 400
