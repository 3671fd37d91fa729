"""Headers that are sound GGUF and describe no model that can be: refused before native code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import gguf_files as gg
from tests.gguf_files import MODEL, Gguf, Tensor

from aiplayground.errors import InvalidModelFile
from aiplayground.gguf import read_gguf
from aiplayground_llamacpp.headers import impossible
from aiplayground_llamacpp.load import check_file

EXPERTS = {"expert_count": 8, "expert_used_count": 2}
GROUPS = {**EXPERTS, "expert_group_count": 4, "expert_group_used_count": 2}
IMPOSSIBLE = [
    ({"block_count": 0}, "0 layers"),
    ({"block_count": 513}, "513 layers"),
    ({"context_length": 2**31}, "2147483648 tokens"),
    ({"block_count": 2, "nextn_predict_layers": 3}, "3 of its 2 layers"),
    ({"expert_count": 4}, "uses 0 of 4 experts"),
    ({"expert_used_count": 1}, "uses 1 of 0 experts"),
    ({**EXPERTS, "expert_used_count": 9}, "uses 9 of 8"),
    ({**EXPERTS, "expert_used_count": gg.array(gg.U32, [2, 9])}, "uses 9 of 8"),
    ({"expert_count": 2000, "expert_used_count": 2}, "uses 2 of 2000"),
    ({"expert_group_count": 1}, "0 experts are in 1 groups"),
    ({**GROUPS, "expert_group_count": 8}, "8 experts are in 8 groups"),
    ({**GROUPS, "expert_group_count": 3}, "2 of 3 groups of 8 experts"),
    ({**GROUPS, "expert_group_used_count": 4}, "4 of 4 groups"),
    ({"pooling_type": 7}, "pooling, 7"),
    ({"rope.scaling.type": "other"}, "'other'"),
    ({"rope.scaling.type": "x" * 200_000}, "scaling of positions"),
    ({"embedding_length": 64, "embedding_length_out": 65}, "65 numbers out of 64"),
    ({"attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon, -1.0"),
    ({"attention.layer_norm_epsilon": float("nan")}, "layer_norm_epsilon, nan"),
]
POSSIBLE = [
    {"block_count": 512, "context_length": 2**31 - 1, "nextn_predict_layers": 1},
    EXPERTS,
    GROUPS,
    {**EXPERTS, "expert_used_count": gg.array(gg.U32, [2] * 500)},
    {**EXPERTS, "expert_group_count": 1},
    {"pooling_type": 2**32 - 1, "rope.scaling.type": "yarn"},
    # Of the wrong type: llama.cpp says so itself.
    {"block_count": "two", "rope.scaling.type": 5, "expert_count": gg.scalar(gg.F32, 3.0)},
]


def written(path: Path, values: dict[str, object]) -> Path:
    return Gguf({**MODEL, **{f"llama.{key}": value for key, value in values.items()}}).write(path)


@pytest.mark.parametrize(("values", "words"), IMPOSSIBLE)
def test_what_cannot_be_is_refused(tmp_path: Path, values: dict[str, object], words: str) -> None:
    path = written(tmp_path / "odd.gguf", values)
    with pytest.raises(InvalidModelFile) as caught:
        check_file(path)
    assert words in caught.value.message
    assert caught.value.message.startswith("odd.gguf is corrupt: ")
    assert caught.value.details["failure"] == "bad-model"


@pytest.mark.parametrize("values", POSSIBLE)
def test_what_can_be_is_not(tmp_path: Path, values: dict[str, object]) -> None:
    assert impossible(read_gguf(written(tmp_path / "fine.gguf", values))) is None


def test_a_tensor_may_make_embeddings_wider(tmp_path: Path) -> None:
    wide = {**MODEL, "llama.embedding_length_out": 9}
    for name, sound in (("dense_2.weight", True), ("blk.0.ffn_up.weight", False)):
        file = Gguf(wide, (Tensor(name, (4, 9)),)).write(tmp_path / "m.gguf")
        assert (impossible(read_gguf(file)) is None) == sound


@pytest.mark.parametrize(
    ("architecture", "values", "words"),
    [
        ("llada-moe", {}, "no experts"),
        ("llada-moe", EXPERTS, None),
        ("paddleocr", {}, "no sections"),
        ("qwen2vl", {"rope.dimension_sections": gg.array(gg.I32, [0, 0, 0, 8])}, "no sections"),
        ("qwen2vl", {"rope.dimension_sections": gg.array(gg.I32, [2, 3, 3, 0])}, None),
    ],
)
def test_what_an_architecture_cannot_be_without(
    tmp_path: Path, architecture: str, values: dict[str, object], words: str | None
) -> None:
    own = {f"{architecture}.{key}": value for key, value in values.items()}
    file = Gguf({"general.architecture": architecture, **own}).write(tmp_path / "m.gguf")
    found = impossible(read_gguf(file))
    assert found is None if words is None else words in (found or "")


def test_where_one_expert_means_none(tmp_path: Path) -> None:
    values = {"general.architecture": "hunyuan-dense", "hunyuan-dense.expert_count": 1}
    assert impossible(read_gguf(Gguf({**MODEL, **values}).write(tmp_path / "h.gguf"))) is None
