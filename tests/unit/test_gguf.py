from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests import gguf_files as gg
from tests.gguf_files import MODEL, Gguf, Tensor

from aiplayground.gguf import (
    GgufArray,
    GgufError,
    GgufFile,
    GgufLongText,
    _types,
    check_vocabulary,
    read_gguf,
)
from aiplayground.gguf._file import format_parameters, quantization_in
from aiplayground.gguf._types import value_type_name

GUIDE = Path(__file__).parents[2] / "plugins/guide/src/aiplayground_guide/guide.gguf"


def read(tmp_path: Path, metadata: object = MODEL, **parts: object) -> GgufFile:
    path = tmp_path / "tiny.gguf"
    return read_gguf(Gguf(metadata, **parts).write(path))  # type: ignore[arg-type] # kept short


def test_a_sound_file_is_described(tmp_path: Path) -> None:
    tensors = (Tensor("a.weight", (4, 2)), Tensor("b.weight", (3,)))
    file = read(tmp_path, tensors=tensors)
    assert (file.version, file.alignment) == (3, 32)
    assert file.size == (tmp_path / "tiny.gguf").stat().st_size
    assert file.data_offset % 32 == 0
    first, second = file.tensors
    assert (first.name, first.shape, first.type, first.size) == ("a.weight", (4, 2), "F32", 32)
    assert (second.offset, second.elements, second.size) == (32, 3, 12)
    assert file.metadata["llama.context_length"] == 128


@pytest.mark.parametrize("version", [2, 3])
def test_both_living_versions_are_read(tmp_path: Path, version: int) -> None:
    assert read(tmp_path, version=version).version == version


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_alignment_moves_the_data(tmp_path: Path, alignment: int) -> None:
    metadata = {**MODEL, "general.alignment": alignment}
    tensors = (Tensor("a"), Tensor("b"))
    file = read(tmp_path, metadata, alignment=alignment, tensors=tensors)
    assert file.alignment == alignment
    assert file.data_offset % alignment == 0
    assert file.tensors[1].offset == max(alignment, 32)


@pytest.mark.parametrize(
    ("type_id", "value"),
    [
        (gg.U8, 255), (gg.I8, -128), (gg.U16, 65535), (gg.I16, -32768), (gg.U32, 2**32 - 1),
        (gg.I32, -(2**31)), (gg.F32, 0.5), (gg.U64, 2**64 - 1), (gg.I64, -(2**63)), (gg.F64, 0.1),
    ],
)  # fmt: skip
def test_every_scalar_type(tmp_path: Path, type_id: int, value: float) -> None:
    metadata = {"one": gg.scalar(type_id, value), "some": gg.array(type_id, [value, value])}
    file = read(tmp_path, metadata)
    assert file.metadata["one"] == value
    assert file.metadata["some"] == (value, value)
    name = file.types["one"]
    assert file.types["some"] == f"array[{name}]"
    assert name == value_type_name(type_id)


def test_truth_values_and_texts(tmp_path: Path) -> None:
    metadata = {
        "yes": True,
        "flags": gg.array(gg.BOOL, [1, 0]),
        "empty": "",
        "text": "grüß dich",
        "bytes": b"caf\xe9",
        "names": gg.array(gg.STRING, ["a", "", "ü"]),
        "none": gg.array(gg.U8, []),
    }
    values = read(tmp_path, metadata).metadata
    assert values["yes"] is True
    assert values["flags"] == (True, False)
    assert (values["empty"], values["text"], values["bytes"]) == ("", "grüß dich", "caf\ufffd")
    assert (values["names"], values["none"]) == (("a", "", "ü"), ())


def test_long_values_become_summaries_and_what_follows_is_read(tmp_path: Path) -> None:
    tokens = [f"token{number}" * (number % 7) for number in range(100_000)]
    metadata = {
        "tokenizer.ggml.tokens": gg.array(gg.STRING, tokens),
        "tokenizer.ggml.scores": gg.array(gg.F32, [0.5] * 100_000),
        "long": "x" * 300_000,
        "kept": "y" * 200_000,
        "last": 7,
    }
    file = read(tmp_path, metadata)
    assert file.metadata["tokenizer.ggml.tokens"] == GgufArray("string", 100_000)
    assert file.metadata["tokenizer.ggml.scores"] == GgufArray("float32", 100_000)
    assert file.metadata["long"] == GgufLongText(300_000)
    assert file.text("kept") == "y" * 200_000
    assert file.integer("last") == 7
    assert [tensor.name for tensor in file.tensors] == ["token_embd.weight"]


def test_a_string_that_spans_windows_is_skipped_whole(tmp_path: Path) -> None:
    tokens = ["x" * 400_000, "", "y" * 262_136, "z", *["w"] * 1500]
    file = read(tmp_path, {"tokens": gg.array(gg.STRING, tokens), "last": 7})
    assert file.metadata == {"tokens": GgufArray("string", 1504), "last": 7}


def test_what_is_kept_is_bounded_over_all_values(tmp_path: Path) -> None:
    metadata = {f"text{number}": "x" * 200_000 for number in range(20)}
    metadata["small"] = "y"
    values = read(tmp_path, metadata).metadata
    kept = [value for value in values.values() if isinstance(value, str)]
    assert sum(map(len, kept)) <= 2 << 20
    assert len(kept) == 11
    assert values["text19"] == GgufLongText(200_000)


def test_nested_arrays(tmp_path: Path) -> None:
    inner = gg.array(gg.U8, [1, 2]).data
    nested = gg.Raw(gg.ARRAY, gg.u32(gg.ARRAY) + gg.u64(2) + inner + inner)
    assert read(tmp_path, {"nested": nested}).metadata["nested"] == ((1, 2), (1, 2))


def test_metadata_cannot_be_changed(tmp_path: Path) -> None:
    file = read(tmp_path)
    with pytest.raises(TypeError):
        file.metadata["x"] = 1  # type: ignore[index]


def test_properties_of_a_model(tmp_path: Path) -> None:
    metadata = {
        **MODEL,
        "general.license": "apache-2.0",
        "general.file_type": 15,
        "tokenizer.chat_template": "{{ messages }}",
    }
    file = read(tmp_path, metadata)
    assert (file.architecture, file.name, file.license) == ("llama", "Tiny", "apache-2.0")
    assert (file.context_length, file.embedding_length) == (128, 4)
    assert (file.parameters, file.size_label) == (8, "8")
    assert file.quantization == "Q4_K_M"
    assert file.chat_template == "{{ messages }}"
    flags = (file.is_projector, file.is_adapter, file.is_embedding, file.has_vision)
    assert flags == (False,) * 4
    assert (file.split_number, file.split_count, file.split_tensors) == (0, 1, None)


def test_properties_of_a_file_that_says_nothing(tmp_path: Path) -> None:
    file = read(tmp_path, {}, tensors=())
    values = (
        file.architecture, file.name, file.license, file.context_length, file.embedding_length,
        file.size_label, file.quantization, file.chat_template,
    )  # fmt: skip
    assert values == (None,) * len(values)
    assert file.parameters == 0


def test_values_of_a_wrong_type_count_as_absent(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": 5,
        "general.file_type": "Q4",
        "tokenizer.chat_template": gg.array(gg.STRING, ["a"]),
        "None.context_length": True,
    }
    file = read(tmp_path, metadata)
    assert (file.architecture, file.chat_template, file.context_length) == (None, None, None)
    assert file.quantization == "F32"


@pytest.mark.parametrize(
    ("file_type", "expected"), [(1, "F16"), (7, "Q8_0"), (1024 + 17, "Q5_K_M"), (38, "MXFP4_MOE")]
)
def test_quantization_as_declared(tmp_path: Path, file_type: int, expected: str) -> None:
    assert read(tmp_path, {**MODEL, "general.file_type": file_type}).quantization == expected


def test_quantization_of_most_weights_where_none_is_declared(tmp_path: Path) -> None:
    tensors = (
        Tensor("a", (4,)),
        Tensor("b", (4,)),
        Tensor("c", (64,), type_id=8, size=68),
    )
    assert read(tmp_path, tensors=tensors).quantization == "Q8_0"
    unknown_type = {**MODEL, "general.file_type": 999}
    assert read(tmp_path, unknown_type, tensors=tensors).quantization == "Q8_0"


def test_quantization_by_name_is_the_last_resort(tmp_path: Path) -> None:
    path = Gguf(tensors=()).write(tmp_path / "Qwen3-8B-Q4_K_M-00001-of-00002.gguf")
    assert read_gguf(path).quantization == "Q4_K_M"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Llama-3-8B-IQ3_XXS", "IQ3_XXS"), ("model.q8_0", "Q8_0"), ("gpt-oss-MXFP4", "MXFP4"),
        ("a-BF16", "BF16"), ("bitnet-TQ2_0", "TQ2_0"), ("Q4_0-v2", "Q4_0"), ("guide", None),
        ("xF16", None), ("Qwen3-4B", None),
    ],
)  # fmt: skip
def test_quantization_in_a_name(name: str, expected: str | None) -> None:
    assert quantization_in(name) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, None), (12, "12"), (896_000, "896K"), (7_241_732_096, "7.2B"), (1_000_000, "1M"),
     (1_040_000_000_000, "1T")],
)  # fmt: skip
def test_numbers_of_weights_as_people_write_them(count: int, expected: str | None) -> None:
    assert format_parameters(count) == expected


def test_a_declared_size_label_wins(tmp_path: Path) -> None:
    assert read(tmp_path, {**MODEL, "general.size_label": "8x7B"}).size_label == "8x7B"


@pytest.mark.parametrize(
    ("metadata", "embedding"),
    [
        ({"general.architecture": "bert"}, True),
        ({"general.architecture": "nomic-bert"}, True),
        ({"general.architecture": "jina-bert-v2"}, True),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, True),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, False),
        ({"general.architecture": "qwen3", "llama.pooling_type": 3}, False),
        ({}, False),
    ],
)
def test_embedding_models(tmp_path: Path, metadata: dict[str, object], embedding: bool) -> None:
    assert read(tmp_path, metadata).is_embedding is embedding


@pytest.mark.parametrize(
    ("metadata", "vision"),
    [
        ({"general.type": "mmproj"}, True),
        ({"general.architecture": "clip"}, True),
        ({"general.type": "mmproj", "clip.has_vision_encoder": True}, True),
        ({"general.architecture": "clip", "clip.has_vision_encoder": False}, False),
        ({"general.architecture": "clip", "clip.has_audio_encoder": True}, False),
    ],
)
def test_projectors(tmp_path: Path, metadata: dict[str, object], vision: bool) -> None:
    file = read(tmp_path, metadata)
    assert file.is_projector
    assert file.has_vision is vision


def test_adapters(tmp_path: Path) -> None:
    assert read(tmp_path, {**MODEL, "general.type": "adapter"}).is_adapter


def test_a_part_of_a_split_model(tmp_path: Path) -> None:
    paths = gg.write_split(tmp_path, "big", 3)
    file = read_gguf(paths[2])
    assert (file.split_number, file.split_count, file.split_tensors) == (2, 3, 3)


def test_a_type_of_the_future_is_left_to_the_engine(tmp_path: Path) -> None:
    tensors = (Tensor("a", (7,), type_id=999), Tensor("b", (4,)))
    file = read(tmp_path, tensors=tensors)
    assert (file.tensors[0].type, file.tensors[0].size) == ("type 999", None)
    assert file.parameters == 11


def test_a_tensor_without_dimensions_is_one_number(tmp_path: Path) -> None:
    file = read(tmp_path, tensors=(Tensor("scale", (), size=4),))
    assert (file.tensors[0].elements, file.tensors[0].size) == (1, 4)


def test_the_padding_after_the_last_tensor_may_be_missing(tmp_path: Path) -> None:
    data = Gguf(tensors=(Tensor("a", (3,)),)).to_bytes()
    path = tmp_path / "a.gguf"
    path.write_bytes(data[:-20])
    assert read_gguf(path).tensors[0].size == 12


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("F32", 32), ("F16", 16), ("BF16", 16), ("F64", 64), ("I8", 8), ("Q4_0", 4.5),
        ("Q4_1", 5), ("Q5_0", 5.5), ("Q5_1", 6), ("Q8_0", 8.5), ("Q2_K", 2.625), ("Q3_K", 3.4375),
        ("Q4_K", 4.5), ("Q5_K", 5.5), ("Q6_K", 6.5625), ("IQ2_XXS", 2.0625), ("IQ4_XS", 4.25),
        ("IQ4_NL", 4.5), ("IQ1_S", 1.5625), ("TQ1_0", 1.6875), ("TQ2_0", 2.0625), ("MXFP4", 4.25),
        ("NVFP4", 4.5),
    ],
)  # fmt: skip
def test_bits_per_weight_of_the_type_table(name: str, bits: float) -> None:
    kind = {kind.name: kind for kind in _types.GGML_TYPES.values()}[name]
    assert kind.size * 8 / kind.block == bits


def test_importing_the_reader_loads_nothing_heavy() -> None:
    code = (
        "import sys, aiplayground.gguf, aiplayground.models\n"
        "heavy = {'pydantic', 'numpy', 'httpx', 'aiohttp', 'starlette', 'uvicorn', 'rich'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide has not been trained yet")
@pytest.mark.parametrize("count", [10, 3000])
def test_a_token_that_is_there_twice_is_found(tmp_path: Path, count: int) -> None:
    """Bytes that are no UTF-8 differ all the same, and empty tokens get names of their own."""
    tokens: list[str | bytes] = [f"token{number}" for number in range(count)]
    tokens += [b"\xff", b"\xfe", "", ""]
    metadata = {"first": 1, "tokenizer.ggml.tokens": gg.array(gg.STRING, tokens)}
    check_vocabulary(read(tmp_path, metadata))
    twice = {"first": 1, "tokenizer.ggml.tokens": gg.array(gg.STRING, [*tokens, "token7"])}
    with pytest.raises(GgufError, match="the token 'token7' twice"):
        check_vocabulary(read(tmp_path, twice))


def test_a_file_without_a_vocabulary_has_none_that_is_wrong(tmp_path: Path) -> None:
    check_vocabulary(read(tmp_path))
    check_vocabulary(read(tmp_path, {"tokenizer.ggml.tokens": gg.array(gg.F32, [0.5, 0.5])}))


def test_the_guide_is_sound() -> None:
    file = read_gguf(GUIDE)
    assert file.architecture == "llama"
    assert file.chat_template
    assert file.size < 2_000_000
    assert 100_000 < file.parameters < 1_000_000
