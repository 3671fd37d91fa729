"""Models that are not GGUF: what they are for, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import model_files as files
from tests.gguf_files import Gguf

from aiplayground.models import LocalModel, ModelPaths, ModelProblem, find_models
from aiplayground.paths import Paths
from aiplayground.settings import ModelSettings
from aiplayground.types import ModelKind


def scan(home: Path) -> tuple[dict[str, LocalModel], list[ModelProblem]]:
    paths = ModelPaths.of(Paths.resolve(home), ModelSettings())
    found = find_models(paths.roots(), (), paths.kind_of)
    return {each.name: each for each in found.models}, list(found.problems)


def test_the_kinds_are_the_same_everywhere() -> None:
    from typing import get_args

    from aiplayground.models import KINDS, ModelType

    assert [*KINDS] == [*get_args(ModelKind)] == [each.value for each in ModelType]


@pytest.mark.parametrize(
    ("names", "shape", "kind"),
    [
        (files.LORA, (2, 2), "lora"),
        (("transformer.a.lora_A.weight",), (2, 2), "lora"),
        (("lycoris_x.lokr_w1",), (2, 2), "lora"),
        (files.VAE, (2, 2), "vae"),
        (files.UNET, (2, 2), "diffusion_model"),
        (files.CHECKPOINT, (2, 4, 1, 1), "checkpoint"),
        (files.CHECKPOINT, (2, 9, 1, 1), "inpaint"),
        (files.CONTROLNET, (2, 2), "controlnet"),
        (("conv_first.weight", "conv_last.weight"), (2, 2), "upscale"),
        (("text_model.encoder.layers.0.weight",), (2, 2), "text_encoder"),
        (("vision_model.encoder.layers.0.weight",), (2, 2), "clip_vision"),
    ],
)
def test_tensors_say_what_weights_are_for(
    tmp_path: Path, names: tuple[str, ...], shape: tuple[int, ...], kind: str
) -> None:
    files.safetensors(tmp_path / "models" / "x.safetensors", names, shape=shape)
    models, problems = scan(tmp_path)
    assert problems == []
    assert models["x"].type == kind
    assert models["x"].format == "safetensors"
    assert models["x"].quantization == "F16"


def test_what_a_file_says_of_itself_is_listed(tmp_path: Path) -> None:
    said = {"modelspec.architecture": "sdxl", "modelspec.license": "MIT"}
    path = files.safetensors(tmp_path / "models" / "loras" / "x.safetensors", metadata=said)
    model = scan(tmp_path)[0]["x"]
    assert (model.architecture, model.license, model.parameters) == ("sdxl", "MIT", 8)
    assert (model.size, model.files) == (path.stat().st_size, (path,))


def test_a_folder_says_what_weights_do_not(tmp_path: Path) -> None:
    files.safetensors(tmp_path / "models" / "gligen" / "x.safetensors", ["fuser.weight"])
    files.safetensors(tmp_path / "models" / "inpaint" / "y.safetensors", files.CHECKPOINT)
    models, problems = scan(tmp_path)
    assert {name: each.type for name, each in models.items()} == {"x": "gligen", "y": "inpaint"}
    assert problems == []


def test_weights_that_nothing_explains_are_no_model(tmp_path: Path) -> None:
    files.safetensors(tmp_path / "models" / "x.safetensors", ["fuser.weight"])
    models, (problem,) = scan(tmp_path)
    assert models == {}
    assert problem.reason == "not_a_model"
    assert "aipg models paths" in problem.message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x10", "truncated"),
        (b"\xff" * 64, "corrupt"),
        ((100).to_bytes(8, "little") + b"{}", "truncated"),
        ((2).to_bytes(8, "little") + b"[]", "corrupt"),
        ((2).to_bytes(8, "little") + b"{x", "corrupt"),
        ((9).to_bytes(8, "little") + b'{"a": {}}', "corrupt"),
        ((40_000).to_bytes(8, "little") + b"[" * 40_000, "corrupt"),
    ],
)
def test_damaged_safetensors_are_named(tmp_path: Path, data: bytes, reason: str) -> None:
    files.write(tmp_path / "models" / "loras" / "x.safetensors", data)
    models, (problem,) = scan(tmp_path)
    assert models == {}
    assert problem.reason == reason


def test_a_file_that_ends_early_is_truncated(tmp_path: Path) -> None:
    files.safetensors(tmp_path / "models" / "x.safetensors", cut=1)
    (problem,) = scan(tmp_path)[1]
    assert problem.reason == "truncated"
    assert "download it again" in problem.message


@pytest.mark.parametrize("shape", [[-1], [True], ["2"], None, [2**70]])
def test_absurd_shapes_are_corrupt(tmp_path: Path, shape: object) -> None:
    header = json.dumps({"a": {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}}).encode()
    data = len(header).to_bytes(8, "little") + header
    files.write(tmp_path / "models" / "x.safetensors", data)
    assert [each.reason for each in scan(tmp_path)[1]] == ["corrupt"]


def test_pickles_are_listed_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "models"
    for name in ("a.ckpt", "vae/b.pt", "upscale_models/c.pth", "d.pth"):
        files.write(root / name)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(Path, "open", refuse)
    models, (problem,) = scan(tmp_path)
    kinds = {name: (each.type, each.format) for name, each in models.items()}
    assert kinds == {
        "a": ("checkpoint", "pickle"),
        "b": ("vae", "pickle"),
        "c": ("upscale", "pickle"),
    }
    assert problem.path.name == "d.pth"


# Folders that are one model -----------------------------------------------------------------------


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "llm" / "tiny.v1")
    models, problems = scan(tmp_path)
    model = models["tiny.v1"]
    assert problems == []
    assert (model.path, model.format, model.type) == (folder, "transformers", "llm")
    assert (model.architecture, model.context_length) == ("llama", 4096)
    assert (model.parameters, model.quantization, model.chat_template) == (4, "F16", True)
    assert {path.name for path in model.files} == {
        "config.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert model.size == sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ("BertModel", "embedding"),
        ("XLMRobertaForSequenceClassification", "embedding"),
        ("Qwen2VLForConditionalGeneration", "llm"),
        ("WhisperForConditionalGeneration", "stt"),
        ("CLIPVisionModelWithProjection", "clip_vision"),
        ("T5EncoderModel", "text_encoder"),
    ],
)
def test_classes_say_what_a_folder_is_for(tmp_path: Path, named: str, kind: str) -> None:
    files.transformers(tmp_path / "models" / "x", architectures=[named])
    assert scan(tmp_path)[0]["x"].type == kind


def test_a_model_that_sees_and_one_that_is_quantized(tmp_path: Path) -> None:
    files.transformers(
        tmp_path / "models" / "x",
        vision_config={},
        text_config={"max_position_embeddings": 99},
        quantization_config={"quant_method": "awq", "bits": 4},
    )
    model = scan(tmp_path)[0]["x"]
    assert (model.vision, model.context_length, model.quantization) == (True, 99, "AWQ-4bit")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "x")
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    files.write(folder / "model.safetensors.index.json", {"weight_map": shards})
    models, (problem,) = scan(tmp_path)
    assert models == {}
    assert problem.reason == "missing_part"
    assert "model-00002-of-00002.safetensors" in problem.message


def test_a_truncated_shard_and_a_bad_configuration(tmp_path: Path) -> None:
    root = tmp_path / "models"
    files.safetensors(files.transformers(root / "x") / "model.safetensors", cut=1)
    files.write(files.transformers(root / "y") / "config.json", "{")
    models, problems = scan(tmp_path)
    assert models == {}
    assert [each.reason for each in problems] == ["truncated", "corrupt"]
    assert "config.json" in problems[1].message


def test_a_folder_that_is_still_written_to_does_not_count(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "x")
    files.write(folder / "model.safetensors.aria2")
    assert scan(tmp_path) == ({}, [])


def test_openvino_ir(tmp_path: Path) -> None:
    folder = files.openvino(tmp_path / "models" / "llm" / "qwen-int4-ov")
    model = scan(tmp_path)[0]["qwen-int4-ov"]
    assert (model.format, model.type, model.quantization) == ("openvino", "llm", "INT4")
    (folder / "openvino_model.bin").unlink()
    models, (problem,) = scan(tmp_path)
    assert models == {}
    assert "openvino_model.bin is missing" in problem.message


def test_openvino_ir_without_a_tokenizer(tmp_path: Path) -> None:
    (files.openvino(tmp_path / "models" / "x") / "tokenizer.json").unlink()
    (problem,) = scan(tmp_path)[1]
    assert "tokenizer" in problem.message


def test_a_lora_of_peft_and_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    root = tmp_path / "models"
    files.write(root / "adapter" / "adapter_config.json", {"peft_type": "LORA"})
    files.safetensors(root / "adapter" / "adapter_model.safetensors")
    files.write(root / "sd" / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    unet = root / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    files.safetensors(unet, ["conv_in.weight"])
    models, problems = scan(tmp_path)
    assert problems == []
    assert {name: (each.type, each.format) for name, each in models.items()} == {
        "adapter": ("lora", "transformers"),
        "sd": ("checkpoint", "diffusers"),
    }
    assert unet in models["sd"].files


def test_other_weights_beside_a_folders_own_are_models_too(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "models" / "x")
    Gguf().write(folder / "x-Q8_0.gguf")
    assert set(scan(tmp_path)[0]) == {"x", "x-Q8_0"}


# What is not finished -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "x.gguf.incomplete", "x.gguf.part", "x.gguf.aria2", ".x.gguf", ".hidden/x.gguf",
        "x.incomplete/x.gguf", "x.part/x.gguf", "abc.tmp/x.gguf",
    ],
)  # fmt: skip
def test_partial_and_hidden_files_never_count(tmp_path: Path, name: str) -> None:
    Gguf().write(tmp_path / "models" / name)
    assert scan(tmp_path) == ({}, [])


def test_a_file_that_aria2_has_not_finished_does_not_count(tmp_path: Path) -> None:
    path = Gguf().write(tmp_path / "models" / "x.gguf")
    files.write(path.with_name("x.gguf.aria2"))
    assert scan(tmp_path) == ({}, [])
    path.with_name("x.gguf.aria2").unlink()
    assert set(scan(tmp_path)[0]) == {"x"}


def test_a_diffusion_model_in_gguf_is_none_for_text(tmp_path: Path) -> None:
    Gguf({"general.architecture": "flux"}).write(tmp_path / "models" / "flux.gguf")
    assert scan(tmp_path)[0]["flux"].type == "diffusion_model"
