from __future__ import annotations

import os
import threading
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from tests import gguf_files as gg
from tests.gguf_files import MODEL, Gguf, Tensor

from aiplayground.gguf import GgufFile, read_gguf
from aiplayground.models import LocalModel, ModelIndex, ModelProblem, ModelType, find_models


def write(path: Path, **metadata: object) -> Path:
    return Gguf({**MODEL, **metadata}).write(path)


def write_dotted(path: Path, metadata: dict[str, object]) -> Path:
    return Gguf({**MODEL, **metadata}).write(path)


def names(root: Path, *extra: Path) -> list[str]:
    scan = find_models([root], extra)
    assert scan.problems == ()
    return [model.name for model in scan.models]


def problem(root: Path) -> ModelProblem:
    (only,) = find_models([root]).problems
    return only


def test_nothing_is_there(tmp_path: Path) -> None:
    scan = find_models([tmp_path, tmp_path / "absent"])
    assert (scan.models, scan.problems) == ((), ())


def test_a_model_is_described(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "general.file_type": 15,
        "general.license": "mit",
        "tokenizer.chat_template": "{{ messages }}",
    }
    path = write_dotted(tmp_path / "org" / "tiny.gguf", metadata)
    (model,) = find_models([tmp_path]).models
    status = path.stat()
    assert model == LocalModel(
        name="tiny",
        path=path,
        files=(path,),
        size=status.st_size,
        type=ModelType.LLM,
        architecture="llama",
        parameters=8,
        quantization="Q4_K_M",
        context_length=128,
        chat_template=True,
        license="mit",
        mtime=status.st_mtime_ns / 1e9,
    )
    assert (model.format, model.vision, model.projector) == ("gguf", False, None)
    with pytest.raises(FrozenInstanceError):
        model.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({}, "llm"),
        ({"general.architecture": "bert"}, "embedding"),
        ({"llama.pooling_type": 1}, "embedding"),
        ({"general.type": "adapter"}, "lora"),
    ],
)
def test_types(tmp_path: Path, metadata: dict[str, object], kind: str) -> None:
    write_dotted(tmp_path / "a.gguf", metadata)
    (model,) = find_models([tmp_path]).models
    assert model.type == kind


def test_only_finished_visible_gguf_files_count(tmp_path: Path) -> None:
    for name in ("a.gguf", "B.GGUF"):
        write(tmp_path / name)
    for name in (
        "c.gguf.part", "d.gguf.incomplete", "e.gguf.tmp", "f.bin", ".g.gguf", ".hidden/h.gguf",
        "gguf", "readme.md",
    ):  # fmt: skip
        write(tmp_path / name)
    assert names(tmp_path) == ["a", "B"]


def test_depth_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path
    for level in range(1, 11):
        deep = deep / f"d{level}"
        write(deep / f"m{level:02d}.gguf")
    assert names(tmp_path) == [f"m{level:02d}" for level in range(1, 9)]


def test_links_are_followed_without_going_round(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store / "a.gguf")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(store)
    (root / "loop").symlink_to(root)
    (store / "back").symlink_to(root)
    (root / "alias.gguf").symlink_to(store / "a.gguf")
    assert names(root) == ["a", "alias"]
    (model, _) = find_models([root]).models
    assert model.path == root / "linked" / "a.gguf"


def test_overlapping_roots_and_extra_files_count_once(tmp_path: Path) -> None:
    path = write(tmp_path / "sub" / "a.gguf")
    scan = find_models([tmp_path, tmp_path / "sub", tmp_path], [path, path])
    assert [model.name for model in scan.models] == ["a"]


def test_two_revisions_of_one_blob_count_once(tmp_path: Path) -> None:
    blob = write(tmp_path / "blobs" / "abc")
    for revision in ("one", "two"):
        (tmp_path / "snapshots" / revision).mkdir(parents=True)
        (tmp_path / "snapshots" / revision / "m.gguf").symlink_to(blob)
    assert names(tmp_path) == ["m"]


def test_a_dangling_link_and_a_missing_extra_file_are_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "a.gguf")
    (root / "gone.gguf").symlink_to(tmp_path / "nowhere")
    scan = find_models([root], [tmp_path / "extra.gguf", tmp_path / "nul\0.gguf"])
    assert [model.name for model in scan.models] == ["a"]
    assert {problem.path.name for problem in scan.problems} == {
        "gone.gguf", "extra.gguf", "nul\0.gguf",
    }  # fmt: skip
    assert {problem.reason for problem in scan.problems} == {"missing"}


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    only = problem(path)
    assert only.reason == "not_a_folder"
    assert "folder that holds the models" in only.message


def test_a_folder_that_may_not_be_listed_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.gguf")
    write(tmp_path / "secret" / "b.gguf")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    scan = find_models([tmp_path])
    assert [model.name for model in scan.models] == ["a"]
    assert [(problem.path.name, problem.reason) for problem in scan.problems] == [
        ("secret", "unreadable")
    ]


def test_a_corrupt_file_is_named_and_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path / "good.gguf")
    whole = Gguf().to_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-20])
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "folder.gguf").mkdir()
    scan = find_models([tmp_path])
    assert [model.name for model in scan.models] == ["good"]
    assert [(problem.path.name, problem.reason) for problem in scan.problems] == [
        ("cut.gguf", "truncated"),
        ("page.gguf", "not_gguf"),
    ]
    assert "cut.gguf is truncated" in scan.problems[0].message


@pytest.mark.parametrize(
    "file",
    [
        Gguf({"general.name": "no architecture"}),
        Gguf(MODEL, tensors=()),
        Gguf({**MODEL, "general.type": "imatrix"}),
    ],
)
def test_sound_files_that_hold_no_model(tmp_path: Path, file: Gguf) -> None:
    file.write(tmp_path / "vocab.gguf")
    assert problem(tmp_path).reason == "not_a_model"


class TestSplitModels:
    def test_all_parts_are_one_model(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 3)
        (model,) = find_models([tmp_path]).models
        assert (model.name, model.path, model.files) == ("big", paths[0], tuple(paths))
        assert model.size == sum(path.stat().st_size for path in paths)
        assert (model.parameters, model.quantization) == (24, "F32")

    def test_the_first_part_may_hold_no_tensors(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 2)
        split = {"split.count": gg.scalar(gg.U16, 2), "split.tensors.count": gg.scalar(gg.I32, 1)}
        Gguf({**MODEL, **split}, tensors=()).write(paths[0])
        (model,) = find_models([tmp_path]).models
        assert (model.parameters, model.quantization) == (8, "F32")

    def test_a_missing_part_is_named(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 3)
        write(tmp_path / "other.gguf")
        paths[1].unlink()
        scan = find_models([tmp_path])
        assert [model.name for model in scan.models] == ["other"]
        (only,) = scan.problems
        assert (only.reason, only.path) == ("missing_part", paths[0])
        assert "big-00002-of-00003.gguf is missing" in only.message

    def test_very_many_missing_parts_are_not_all_named(self, tmp_path: Path) -> None:
        write(tmp_path / "big-00002-of-99999.gguf")
        message = problem(tmp_path).message
        assert "big-00001-of-99999.gguf, big-00003-of-99999.gguf" in message
        assert len(message) < 400

    def test_a_damaged_part_is_the_problem(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 3)
        paths[2].write_bytes(paths[2].read_bytes()[:-10])
        only = problem(tmp_path)
        assert (only.reason, only.path) == ("truncated", paths[2])

    def test_a_part_under_a_whole_models_name(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 2)
        paths[1].unlink()
        paths[0].rename(tmp_path / "renamed.gguf")
        only = problem(tmp_path)
        assert only.reason == "mixed_parts"
        assert "part 1 of 2 by its content, but part 1 of 1 by its name" in only.message

    def test_parts_in_the_wrong_order(self, tmp_path: Path) -> None:
        first, second = gg.write_split(tmp_path, "big", 2)
        data = first.read_bytes(), second.read_bytes()
        second.write_bytes(data[0])
        first.write_bytes(data[1])
        assert problem(tmp_path).reason == "mixed_parts"

    def test_parts_of_different_models(self, tmp_path: Path) -> None:
        paths = gg.write_split(tmp_path, "big", 2)
        split = {"split.no": gg.scalar(gg.U16, 1), "split.count": gg.scalar(gg.U16, 2)}
        Gguf(split, tensors=[Tensor("a"), Tensor("b")]).write(paths[1])
        only = problem(tmp_path)
        assert only.reason == "mixed_parts"
        assert "hold 3 tensors and should hold 2" in only.message

    def test_the_same_name_in_two_folders(self, tmp_path: Path) -> None:
        gg.write_split(tmp_path / "x", "big", 2)
        gg.write_split(tmp_path / "y", "big", 2)
        assert names(tmp_path) == ["x/big", "y/big"]

    def test_one_part_of_one(self, tmp_path: Path) -> None:
        write(tmp_path / "a-00001-of-00001.gguf")
        assert names(tmp_path) == ["a"]

    @pytest.mark.parametrize("name", ["a-00000-of-00002", "a-00003-of-00002", "a-1-of-2"])
    def test_names_that_only_look_split(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / f"{name}.gguf")
        assert names(tmp_path) == [name]


class TestProjectors:
    def projector(self, path: Path, width: int | None = 4, **metadata: object) -> Path:
        pairs: dict[str, object] = {"general.architecture": "clip", **metadata}
        if width is not None:
            pairs["clip.vision.projection_dim"] = width
        return Gguf(pairs).write(path)

    def vision(self, root: Path) -> dict[str, str | None]:
        scan = find_models([root])
        assert scan.problems == ()
        assert all(model.vision is (model.projector is not None) for model in scan.models)
        return {
            model.name: model.projector.name if model.projector else None for model in scan.models
        }

    def test_one_beside_the_model_lets_it_see(self, tmp_path: Path) -> None:
        write(tmp_path / "a" / "model.gguf")
        write(tmp_path / "b" / "other.gguf")
        self.projector(tmp_path / "a" / "mmproj-F16.gguf")
        assert self.vision(tmp_path) == {"model": "mmproj-F16.gguf", "other": None}

    def test_every_quantization_of_the_model_sees(self, tmp_path: Path) -> None:
        for quantization in ("Q4_K_M", "Q8_0"):
            write(tmp_path / f"gemma-3-4b-it-{quantization}.gguf")
        self.projector(tmp_path / "mmproj-gemma-3-4b-it-f16.gguf")
        assert set(self.vision(tmp_path).values()) == {"mmproj-gemma-3-4b-it-f16.gguf"}

    def test_one_of_another_width_does_not_fit(self, tmp_path: Path) -> None:
        write(tmp_path / "model.gguf")
        self.projector(tmp_path / "mmproj.gguf", width=8)
        assert self.vision(tmp_path) == {"model": None}

    def test_an_unknown_width_is_no_obstacle(self, tmp_path: Path) -> None:
        write(tmp_path / "model.gguf")
        self.projector(tmp_path / "mmproj.gguf", width=None)
        assert self.vision(tmp_path) == {"model": "mmproj.gguf"}

    def test_a_flat_folder_of_several_models(self, tmp_path: Path) -> None:
        for stem in ("gemma-3-4b-Q4_0", "gemma-3-12b-Q4_0", "Qwen2-VL-2B", "llama-3"):
            write(tmp_path / f"{stem}.gguf")
        for stem in ("mmproj-gemma-3-4b", "mmproj-gemma-3-12b", "Qwen2-VL-2B-mmproj-f16"):
            self.projector(tmp_path / f"{stem}.gguf")
        assert self.vision(tmp_path) == {
            "gemma-3-4b-Q4_0": "mmproj-gemma-3-4b.gguf",
            "gemma-3-12b-Q4_0": "mmproj-gemma-3-12b.gguf",
            "Qwen2-VL-2B": "Qwen2-VL-2B-mmproj-f16.gguf",
            "llama-3": None,
        }

    def test_ears_are_no_eyes(self, tmp_path: Path) -> None:
        write(tmp_path / "model.gguf")
        self.projector(tmp_path / "mmproj.gguf", **{"clip.has_audio_encoder": True})
        assert self.vision(tmp_path) == {"model": None}

    def test_embedding_models_and_adapters_stay_blind(self, tmp_path: Path) -> None:
        write_dotted(tmp_path / "e.gguf", {"llama.pooling_type": 1})
        write_dotted(tmp_path / "l.gguf", {"general.type": "adapter"})
        self.projector(tmp_path / "mmproj.gguf")
        assert self.vision(tmp_path) == {"e": None, "l": None}


class TestIndex:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        reads: list[str] = []

        def counting(path: Path) -> GgufFile:
            reads.append(path.name)
            return read_gguf(path)

        monkeypatch.setattr("aiplayground.models._index.read_gguf", counting)
        return reads

    def test_unchanged_files_are_read_once(self, tmp_path: Path, reads: list[str]) -> None:
        write(tmp_path / "a.gguf")
        (tmp_path / "bad.gguf").write_bytes(b"junk")
        index = ModelIndex()
        first = index.scan([tmp_path])
        assert sorted(reads) == ["a.gguf", "bad.gguf"]
        assert index.scan([tmp_path]) == first
        assert len(reads) == 2

    def test_changed_new_and_removed_files_are_noticed(
        self, tmp_path: Path, reads: list[str]
    ) -> None:
        path = write(tmp_path / "a.gguf")
        write(tmp_path / "b.gguf")
        index = ModelIndex()
        index.scan([tmp_path])
        reads.clear()
        os.utime(path, ns=(1, 1))
        write(tmp_path / "c.gguf")
        (tmp_path / "b.gguf").unlink()
        assert [model.name for model in index.scan([tmp_path]).models] == ["a", "c"]
        assert sorted(reads) == ["a.gguf", "c.gguf"]

    def test_another_size_at_the_same_time_is_a_change(
        self, tmp_path: Path, reads: list[str]
    ) -> None:
        path = write(tmp_path / "a.gguf")
        os.utime(path, ns=(5, 5))
        index = ModelIndex()
        index.scan([tmp_path])
        path.write_bytes(b"junk")
        os.utime(path, ns=(5, 5))
        assert [problem.reason for problem in index.scan([tmp_path]).problems] == ["not_gguf"]
        assert len(reads) == 2

    def test_what_may_pass_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "a.gguf")
        index = ModelIndex()
        with monkeypatch.context() as patch:

            def denied(*_: object, **__: object) -> None:
                raise PermissionError(13, "Permission denied")

            patch.setattr(Path, "open", denied)
            assert [problem.reason for problem in index.scan([tmp_path]).problems] == ["unreadable"]
        assert [model.name for model in index.scan([tmp_path]).models] == ["a"]

    def test_threads_may_scan_together(self, tmp_path: Path, reads: list[str]) -> None:
        for number in range(20):
            write(tmp_path / f"m{number}.gguf")
        index = ModelIndex()
        scans: list[object] = []
        threads = [
            threading.Thread(target=lambda: scans.append(index.scan([tmp_path]))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(scans) == 8
        assert all(scan == scans[0] for scan in scans)
        assert len(reads) == 20
