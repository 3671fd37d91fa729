from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests import gguf_files as gg
from tests.gguf_files import Gguf

from aiplayground.errors import ErrorCode, ModelNotFound
from aiplayground.models import LocalModel, find_models, match_model
from aiplayground.models._names import unique_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x", "a/y"], ["x", "y"]),
        (["a/x", "b/x", "b/y"], ["a/x", "b/x", "y"]),
        (["r/a/q/x", "r/b/q/x"], ["a/q/x", "b/q/x"]),
        (["r/a/x", "r/b/x", "s/b/x"], ["r/a/x", "r/b/x", "s/b/x"]),
        (["a/X", "b/x"], ["a/X", "b/x"]),
        (["A/x", "a/x"], ["A/x.gguf", "a/x.gguf"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths: list[str], names: list[str]) -> None:
    given = [(Path(path).name, Path(f"{path}.gguf")) for path in paths]
    assert unique_names(given) == names


def test_a_split_and_a_whole_model_of_one_name(tmp_path: Path) -> None:
    gg.write_split(tmp_path, "m", 2)
    Gguf().write(tmp_path / "m.gguf")
    found = find_models([tmp_path]).models
    assert len({model.name for model in found}) == 2
    assert all(match_model(model.name, found) is model for model in found)


@pytest.fixture
def models(tmp_path: Path) -> tuple[LocalModel, ...]:
    for name in ("guide", "Qwen3-4B-Q4_K_M", "one/same", "two/same"):
        Gguf().write(tmp_path / f"{name}.gguf")
    gg.write_split(tmp_path, "big", 2)
    return find_models([tmp_path]).models


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("guide", "guide"),
        ("guide.gguf", "guide"),
        ("GUIDE.GGUF", "guide"),
        ("qwen3-4b-q4_k_m", "Qwen3-4B-Q4_K_M"),
        ("one/same", "one/same"),
        ("Two/Same.gguf", "two/same"),
        ("big", "big"),
    ],
)
def test_a_name_matches(models: tuple[LocalModel, ...], query: str, name: str) -> None:
    assert match_model(query, models).name == name


def test_the_exact_name_comes_before_its_likes(tmp_path: Path) -> None:
    for name in ("a", "a.gguf"):
        Gguf().write(tmp_path / f"{name}.gguf")
    found = find_models([tmp_path]).models
    assert match_model("a.gguf", found).name == "a.gguf"
    assert match_model("a", found).name == "a"


def test_a_path_matches(
    models: tuple[LocalModel, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert match_model(str(tmp_path / "two" / "same.gguf"), models).name == "two/same"
    assert match_model(str(tmp_path / "big-00002-of-00002.gguf"), models).name == "big"
    monkeypatch.chdir(tmp_path / "one")
    assert match_model("same.gguf", models).name == "one/same"
    assert match_model(os.path.join("..", "guide.gguf"), models).name == "guide"  # noqa: PTH118 - the text is the point


def test_an_unknown_name_is_answered_with_close_ones(models: tuple[LocalModel, ...]) -> None:
    with pytest.raises(ModelNotFound) as caught:
        match_model("guid", models)
    error = caught.value
    assert error.code == ErrorCode.MODEL_NOT_FOUND
    assert error.message == "There is no model 'guid'. Did you mean 'guide'?"
    assert error.details["model"] == "guid"
    assert error.details["close"] == ["guide"]
    assert error.details["available"] == ["big", "guide", "one/same", "Qwen3-4B-Q4_K_M", "two/same"]


def test_a_strange_name_is_answered_with_what_there_is(models: tuple[LocalModel, ...]) -> None:
    for name in ("zzzzzzzz", "", "\0", "/", "~", "\udc80", "x" * 10_000, "../../etc/passwd"):
        with pytest.raises(ModelNotFound, match="There are: big, guide") as caught:
            match_model(name, models)
        json.dumps(caught.value.to_dict(), ensure_ascii=False).encode()
        assert len(caught.value.message) < 400


def test_an_ambiguous_name_lists_its_meanings(models: tuple[LocalModel, ...]) -> None:
    with pytest.raises(ModelNotFound, match="Name one of: one/same, two/same") as caught:
        match_model("same", models)
    assert caught.value.details["close"] == ["one/same", "two/same"]


def test_names_that_need_no_folder_match_by_stem(models: tuple[LocalModel, ...]) -> None:
    remaining = [model for model in models if model.name != "two/same"]
    assert match_model("SAME", remaining).name == "one/same"


def test_long_lists_are_cut(tmp_path: Path) -> None:
    for number in range(15):
        Gguf().write(tmp_path / f"model-{number:02d}.gguf")
    with pytest.raises(ModelNotFound) as caught:
        match_model("zzz", find_models([tmp_path]).models)
    assert len(caught.value.details["available"]) == 10
    assert caught.value.message.endswith("model-09, ….")


def test_no_models_at_all() -> None:
    with pytest.raises(ModelNotFound, match="No models were found: put a file that ends in"):
        match_model("guide", ())
