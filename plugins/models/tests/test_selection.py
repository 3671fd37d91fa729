"""Which files of a repository are taken."""

from __future__ import annotations

import pytest

from aiplayground.errors import ModelNotFound
from aiplayground_models.selection import RemoteFile, Wanted, choose, gguf_groups, main_file

PLAIN = ["README.md", ".gitattributes", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-f16.gguf"]
SPLIT = [f"Q8_0/big-Q8_0-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
UNSLOTH = ["x-UD-Q4_K_XL.gguf", "x-Q4_K_M.gguf", "x-IQ2_XXS.gguf", "x-BF16.gguf"]
SEEING = ["v-Q4_K_M.gguf", "mmproj-v-BF16.gguf", "mmproj-v-f16.gguf", "v-Q8_0.gguf"]
TORCH = ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "vocab.txt"]


def names(files: list[str], **wanted: object) -> list[str]:
    chosen = choose("o/r", [RemoteFile(each, 1) for each in files], Wanted(**wanted))  # type: ignore[arg-type]  # a test's fields
    return [each.path for each in chosen]


@pytest.mark.parametrize(
    ("files", "quant", "meant"),
    [
        (PLAIN, "Q8_0", ["m-Q8_0.gguf"]),
        (PLAIN, "q4_k_m", ["m-Q4_K_M.gguf"]),
        (PLAIN, "F16", ["m-f16.gguf"]),
        ([*PLAIN, *SPLIT[1:], "Q6_K/m-Q6_K.gguf"], "Q6_K", ["Q6_K/m-Q6_K.gguf"]),
        (SPLIT, "Q8_0", SPLIT),
        (UNSLOTH, "UD-Q4_K_XL", ["x-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "Q4_K_XL", ["x-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "IQ2_XXS", ["x-IQ2_XXS.gguf"]),
        (SEEING, "Q8_0", ["v-Q8_0.gguf", "mmproj-v-f16.gguf"]),
    ],
)
def test_a_quantization_is_picked_by_name(files: list[str], quant: str, meant: list[str]) -> None:
    assert names(files, quant=quant) == meant


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (PLAIN, ["m-Q4_K_M.gguf"]),
        (SPLIT, SPLIT),
        (["a-Q8_0.gguf", "a-IQ1_S.gguf"], ["a-Q8_0.gguf"]),
        (["weird.gguf"], ["weird.gguf"]),
        (SEEING, ["v-Q4_K_M.gguf", "mmproj-v-f16.gguf"]),
        (TORCH, ["config.json", "model.safetensors", "vocab.txt"]),
        (["config.json", "pytorch_model.bin"], ["config.json", "pytorch_model.bin"]),
    ],
)
def test_nothing_named_takes_what_is_usual(files: list[str], meant: list[str]) -> None:
    assert names(files) == meant


def test_files_and_patterns() -> None:
    assert names(PLAIN, paths=("m-Q8_0.gguf",)) == ["m-Q8_0.gguf"]
    assert names(SPLIT, paths=(SPLIT[1],)) == SPLIT
    assert names(SPLIT, paths=("big-Q8_0-00001-of-00003.gguf",)) == SPLIT
    assert names(SPLIT, paths=("Q8_0/",)) == SPLIT
    assert names(TORCH, include=("*.bin",)) == ["pytorch_model.bin"]
    assert names(TORCH, include=("*",), exclude=("onnx/", "*.bin")) == [
        "config.json", "model.safetensors", "vocab.txt"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "wanted", "said"),
    [
        (PLAIN, {"quant": "Q4_K_S"}, "Did you mean 'Q4_K_M'.*There are: Q4_K_M, Q8_0, F16"),
        (TORCH, {"quant": "Q4_K_M"}, "no GGUF files"),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], {"quant": "Q8_0"}, "several files.*a-Q8_0.gguf, b-Q8"),
        (PLAIN, {"paths": ("m-Q8.gguf",)}, "Did you mean 'm-Q8_0.gguf'"),
        (PLAIN, {"include": ("*.onnx",)}, "There are: README.md"),
        ([".gitattributes"], {}, "It is empty"),
    ],
)
def test_a_miss_lists_what_there_is(files: list[str], wanted: dict[str, object], said: str) -> None:
    with pytest.raises(ModelNotFound, match=said):
        names(files, **wanted)


def test_the_main_file_is_the_first_part() -> None:
    chosen = choose("o/r", [RemoteFile(each) for each in [*SPLIT, "mmproj-F16.gguf"]], Wanted())
    assert main_file(chosen).path == SPLIT[0]
    assert [each.quant for each in gguf_groups(chosen)] == ["Q8_0"]
