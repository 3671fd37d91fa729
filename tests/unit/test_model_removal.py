"""Removing models: what goes with one, what stays, what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests import model_files as files
from tests.gguf_files import MODEL, Gguf, Tensor, write_split

from aiplayground.errors import FileOperationError
from aiplayground.models import ModelPaths, Removal, find_models, match_model, plan_removal
from aiplayground.paths import Paths
from aiplayground.settings import ModelSettings


def plan(home: Path, name: str, **settings: object) -> Removal:
    paths = ModelPaths.of(Paths.resolve(home), ModelSettings.model_validate(settings))
    scan = find_models(paths.roots(), (), paths.kind_of)
    return plan_removal(match_model(name, scan.models), scan, paths)


def projector(path: Path) -> Path:
    metadata = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    return Gguf(metadata, (Tensor("mm.0.weight"),)).write(path)


def test_all_parts_go_and_the_folder_that_is_empty_then(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "llm" / "big"
    parts = write_split(folder, "big", 3)
    files.write(folder / ".cache" / "huggingface" / "x.metadata")
    removal = plan(tmp_path, "big")
    assert removal.files == tuple(parts)
    assert removal.freed == sum(path.stat().st_size for path in parts)
    removal.run()
    assert not folder.exists()
    assert (tmp_path / "models" / "llm").is_dir()


def test_what_the_user_put_beside_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "x"
    Gguf().write(folder / "x.gguf")
    files.write(folder / "notes.txt")
    plan(tmp_path, "x").run()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_projector_goes_with_its_last_model(tmp_path: Path) -> None:
    root = tmp_path / "models"
    eye = projector(root / "mmproj-a.gguf")
    for name in ("a-Q4_0", "a-Q8_0"):
        Gguf(MODEL).write(root / f"{name}.gguf")
    first = plan(tmp_path, "a-Q4_0")
    assert (first.kept, first.files) == (eye, (root / "a-Q4_0.gguf",))
    first.run()
    last = plan(tmp_path, "a-Q8_0")
    assert (last.kept, last.files) == (None, (root / "a-Q8_0.gguf", eye))
    last.run()
    assert list(root.iterdir()) == []


def test_a_folder_that_is_a_model_goes_as_a_whole(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "llm" / "t")
    files.write(folder / "README.md")
    size = sum(path.stat().st_size for path in folder.iterdir())
    removal = plan(tmp_path, "t")
    assert (removal.folder, removal.files, removal.freed) == (folder, (), size)
    removal.run()
    assert not folder.exists()


def test_a_folder_with_another_model_in_it_stays(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "t")
    other = Gguf().write(folder / "other.gguf")
    removal = plan(tmp_path, "t")
    assert removal.folder is None
    removal.run()
    assert list(folder.iterdir()) == [other]


def test_a_model_right_in_the_folder_of_its_kind(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "llm")
    plan(tmp_path, "llm").run()
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_what_is_only_read_is_not_removed(tmp_path: Path) -> None:
    path = Gguf().write(tmp_path / "theirs" / "x.gguf")
    with pytest.raises(FileOperationError, match="only read") as refused:
        plan(tmp_path, "x", folders=[str(path.parent)])
    assert refused.value.details["reason"] == "read-only"
    assert path.exists()


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_of_a_link_only_the_link_goes(tmp_path: Path) -> None:
    target = Gguf().write(tmp_path / "disk" / "x.gguf")
    link = tmp_path / "models" / "x.gguf"
    link.parent.mkdir()
    link.symlink_to(target)
    removal = plan(tmp_path, "x")
    assert removal.freed == 0
    removal.run()
    assert target.exists()
    assert not link.exists()


def test_another_name_of_the_same_file_frees_nothing(tmp_path: Path) -> None:
    path = Gguf().write(tmp_path / "models" / "x.gguf")
    os.link(path, tmp_path / "second")
    assert plan(tmp_path, "x").freed == 0


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    Gguf().write(tmp_path / "models" / "x.gguf")
    removal = plan(tmp_path, "x")
    removal.run()
    removal.run()
    assert (tmp_path / "models").is_dir()
