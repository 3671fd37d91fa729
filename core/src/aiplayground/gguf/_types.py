"""Tables and plain values of the GGUF format, without any reading.

Source: the GGUF specification in ggml's `docs/gguf.md`, the type traits of `ggml/src/ggml.c`, and
`enum llama_ftype` in llama.cpp's `include/llama.h`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class GgufArray:
    """Stands for an array that was skipped: its element type and its length in elements."""

    type: str
    length: int


@dataclass(frozen=True, slots=True)
class GgufLongText:
    """Stands for a text that was skipped because it is too long: its length in bytes."""

    length: int


GgufValue: TypeAlias = "bool | int | float | str | tuple[GgufValue, ...] | GgufArray | GgufLongText"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies in the file.

    `shape` is in ggml's order, fastest-changing dimension first. `offset` counts bytes from the
    start of the tensor data; `size` is in bytes, and None for a type that this table lacks.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    type_id: int
    offset: int
    size: int | None

    @property
    def elements(self) -> int:
        """Number of weights."""
        return prod(self.shape)


class GgmlType(NamedTuple):
    """How ggml packs one tensor type: `block` weights take `size` bytes."""

    name: str
    block: int
    size: int


# Ids that are absent were removed from the format (4, 5, 31-33, 36-38) or are not known yet.
GGML_TYPES = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 40),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
    42: GgmlType("Q2_0", 64, 18),
}

# general.file_type: what most tensors are, as the tools name it.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
FILE_TYPE_GUESSED = 1024  # a flag that llama.cpp adds when it inferred the type itself

# Architectures that give embeddings even where no pooling type is written.
EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)


class Scalar(NamedTuple):
    """A metadata value of fixed size; `code` is its `struct` letter."""

    name: str
    code: str
    size: int

    def unpack(self, data: bytes) -> tuple[int | float, ...]:
        """Return every value in `data`, whose length is a multiple of `size`."""
        return struct.unpack(f"<{len(data) // self.size}{self.code}", data)


# gguf_metadata_value_type
UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
SCALARS = {
    0: Scalar("uint8", "B", 1),
    1: Scalar("int8", "b", 1),
    2: Scalar("uint16", "H", 2),
    3: Scalar("int16", "h", 2),
    UINT32: Scalar("uint32", "I", 4),
    5: Scalar("int32", "i", 4),
    6: Scalar("float32", "f", 4),
    BOOL: Scalar("bool", "B", 1),
    10: Scalar("uint64", "Q", 8),
    11: Scalar("int64", "q", 8),
    12: Scalar("float64", "d", 8),
}


def value_type_name(type_id: int) -> str:
    """Name a metadata value type; an unknown one by its number."""
    names = {STRING: "string", ARRAY: "array"}
    scalar = SCALARS.get(type_id)
    return scalar.name if scalar else names.get(type_id, f"type {type_id}")
