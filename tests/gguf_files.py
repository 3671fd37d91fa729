"""Write small GGUF files, sound or broken in one chosen place, with `struct` alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_CODES = {
    U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q",
    I64: "q", F64: "d",
}  # fmt: skip
F32_TENSOR = 0


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data)) + data


@dataclass(frozen=True)
class Raw:
    """A metadata value as its type id and its bytes, for what `value_of` would not write."""

    type_id: int
    data: bytes


def scalar(type_id: int, value: float) -> Raw:
    return Raw(type_id, struct.pack("<" + _CODES[type_id], value))


def array(type_id: int, values: Sequence[object], length: int | None = None) -> Raw:
    if type_id == STRING:
        body = b"".join(text(value) for value in values if isinstance(value, str | bytes))
    else:
        body = struct.pack(f"<{len(values)}{_CODES[type_id]}", *values)
    return Raw(ARRAY, u32(type_id) + u64(len(values) if length is None else length) + body)


def value_of(value: object) -> Raw:
    if isinstance(value, Raw):
        return value
    if isinstance(value, bool):
        return scalar(BOOL, value)
    if isinstance(value, int):
        return scalar(U32, value)
    if isinstance(value, float):
        return scalar(F32, value)
    if isinstance(value, str | bytes):
        return Raw(STRING, text(value))
    raise TypeError(value)


@dataclass(frozen=True)
class Tensor:
    """A tensor of zeros; `offset` None puts it after the one before."""

    name: str | bytes = "token_embd.weight"
    shape: tuple[int, ...] = (4, 2)
    type_id: int = F32_TENSOR
    offset: int | None = None
    size: int | None = None


MODEL: Mapping[str, object] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "llama.context_length": 128,
    "llama.embedding_length": 4,
}


@dataclass(frozen=True)
class Gguf:
    """The parts of a file; those that are None follow from the rest."""

    metadata: Mapping[str, object] | Sequence[tuple[str | bytes, object]] = field(
        default_factory=lambda: MODEL
    )
    tensors: Sequence[Tensor] = (Tensor(),)
    magic: bytes = b"GGUF"
    version: int = 3
    pairs: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        """Everything up to the tensor descriptions."""
        metadata = self.metadata
        pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        count = len(pairs) if self.pairs is None else self.pairs
        parts = [self.magic, u32(self.version), u64(tensor_count), u64(count)]
        for key, value in pairs:
            raw = value_of(value)
            parts += [text(key), u32(raw.type_id), raw.data]
        return b"".join(parts)

    def to_bytes(self) -> bytes:
        infos, end, data_end = [], 0, 0
        for tensor in self.tensors:
            size = prod(tensor.shape) * 4 if tensor.size is None else tensor.size
            offset = end if tensor.offset is None else tensor.offset
            end = self._pad(end + size)
            if tensor.offset is None:  # a chosen offset may lie anywhere: no data for it
                data_end = max(data_end, end)
            infos.append(
                text(tensor.name)
                + u32(len(tensor.shape))
                + b"".join(u64(dimension) for dimension in tensor.shape)
                + u32(tensor.type_id)
                + u64(offset)
            )
        header = self.header() + b"".join(infos)
        return header + bytes(self._pad(len(header)) - len(header) + data_end)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.to_bytes())
        return path

    def _pad(self, size: int) -> int:
        return -(-size // self.alignment) * self.alignment


def write_split(folder: Path, stem: str, count: int, **first: object) -> list[Path]:
    """Write a split model whose first part alone has the metadata, as gguf-split does."""
    paths = []
    for number in range(count):
        split: dict[str, object] = {
            "split.no": scalar(U16, number),
            "split.count": scalar(U16, count),
            "split.tensors.count": scalar(I32, count),
        }
        metadata = {**MODEL, **first, **split} if number == 0 else split
        path = folder / f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"
        paths.append(Gguf(metadata, (Tensor(f"blk.{number}.weight"),)).write(path))
    return paths
