"""Bounded reading of a GGUF header's metadata and tensor descriptions.

Long values are skipped and summarised, so memory stays bounded by the window of the cursor and by
`MAX_KEPT`, whatever the file claims.
"""

from __future__ import annotations

from ._cursor import Cursor, Malformed
from ._types import (
    ARRAY,
    BOOL,
    GGML_TYPES,
    SCALARS,
    STRING,
    UINT32,
    GgufArray,
    GgufLongText,
    GgufValue,
    TensorInfo,
    value_type_name,
)

MAX_PAIRS = 16_384  # real files have fewer than 200
MAX_TENSORS = 65_536  # the largest mixtures of experts have a few thousand
MAX_NAME = 65_535  # bytes of a metadata key, by the specification
MAX_TENSOR_NAME = 255  # the specification says 64; image models exceed it
MAX_STRING = 1 << 30  # bytes; a longer one is no truncation but nonsense
MAX_ARRAY = 1 << 30  # elements; llama.cpp has the same two limits
MAX_NESTED = 65_536  # arrays inside arrays, in the whole file
MAX_DEPTH = 4  # arrays inside arrays, deepest
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_KEPT = 2 << 20  # bytes of texts and arrays kept as values; the rest become summaries
POINTER = 8  # bytes that an element of a tuple takes, however small it was in the file
KEPT_TEXT = 256 << 10  # bytes; chat templates are the longest texts worth keeping
KEPT_ELEMENTS = 1024
INT64_MAX = (1 << 63) - 1


class MetadataReader:
    """Reads key-value pairs, keeping short values and summarising long ones."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._kept = 0
        self._nested = 0
        self._element = ""
        self.types: dict[str, str] = {}
        self.positions: dict[str, int] = {}

    def read(self, count: int) -> dict[str, GgufValue]:
        """Return `count` pairs, in the file's order."""
        metadata: dict[str, GgufValue] = {}
        for _ in range(count):
            key = self._cursor.name(MAX_NAME, "a metadata key")
            if key in metadata:
                raise Malformed("corrupt", f"the metadata key {key!r} occurs twice")
            type_id = self._cursor.u32()
            if key == "general.alignment" and type_id != UINT32:
                raise Malformed("corrupt", f"{key} is a {value_type_name(type_id)}, not a uint32")
            self.positions[key] = self._cursor.offset
            metadata[key] = self._value(type_id)
            name = value_type_name(type_id)
            self.types[key] = f"{name}[{self._element}]" if type_id == ARRAY else name
        return metadata

    def _value(self, type_id: int) -> GgufValue:
        if type_id == STRING:
            return self._text()
        if type_id == ARRAY:
            return self._array(1)
        return self._scalars(type_id, 1)[0]

    def _text(self) -> str | GgufLongText:
        length = self._cursor.length(MAX_STRING, 1, "bytes of text")
        if length > KEPT_TEXT or not self._keep(length):
            self._cursor.skip(length)
            return GgufLongText(length)
        # Vocabularies hold byte pieces that are not UTF-8; descriptions in Latin-1 occur too.
        return self._cursor.take(length).decode("utf-8", "replace")

    def _array(self, depth: int) -> GgufValue:
        type_id = self._cursor.u32()
        if depth == 1:
            self._element = value_type_name(type_id)
        if type_id == ARRAY:
            return self._nested_array(depth)
        if type_id == STRING:
            return self._texts()
        scalar = SCALARS.get(type_id)
        each = scalar.size if scalar else 1
        count = self._cursor.length(MAX_ARRAY, each, "array elements")
        if scalar and (count > KEPT_ELEMENTS or not self._keep(count * POINTER)):
            self._cursor.skip(count * each)
            return GgufArray(scalar.name, count)
        return self._scalars(type_id, count)

    def _texts(self) -> GgufValue:
        count = self._cursor.length(MAX_ARRAY, 8, "array elements")
        if count > KEPT_ELEMENTS or not self._keep(count * POINTER):
            self._cursor.skip_strings(count)
            return GgufArray("string", count)
        return tuple(self._text() for _ in range(count))

    def _nested_array(self, depth: int) -> GgufValue:
        count = self._cursor.length(MAX_ARRAY, 12, "arrays")
        self._nested += count
        if self._nested > MAX_NESTED or depth >= MAX_DEPTH:
            raise Malformed("corrupt", "its metadata nests arrays too deeply or too often")
        values = [self._array(depth + 1) for _ in range(count)]
        return tuple(values) if count <= KEPT_ELEMENTS else GgufArray("array", count)

    def _scalars(self, type_id: int, count: int) -> tuple[int | float | bool, ...]:
        scalar = SCALARS.get(type_id)
        if scalar is None:
            raise Malformed("corrupt", f"it has a metadata value of unknown type {type_id}")
        values = scalar.unpack(self._cursor.take(count * scalar.size))
        if type_id != BOOL:
            return values
        if any(value > 1 for value in values):
            raise Malformed("corrupt", "it has a truth value that is neither 0 nor 1")
        return tuple(value == 1 for value in values)

    def _keep(self, size: int) -> bool:
        if self._kept + size > MAX_KEPT:
            return False
        self._kept += size
        return True


def first_twice(cursor: Cursor, count: int) -> str | None:
    """Read `count` texts; return the first that is there twice, empty ones not counted."""
    seen: set[bytes] = set()
    for _ in range(count):
        text = cursor.take(cursor.length(MAX_STRING, 1, "bytes of text"))
        if text and text in seen:
            return text.decode("utf-8", "replace")
        seen.add(text)
    return None


def read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorInfo, ...]:
    """Return the `count` tensor descriptions that follow the metadata."""
    tensors: dict[str, TensorInfo] = {}
    for _ in range(count):
        tensor = _read_tensor(cursor)
        if tensor.name in tensors:
            raise Malformed("corrupt", f"the tensor {tensor.name!r} occurs twice")
        if tensor.offset % alignment:
            raise Malformed("corrupt", f"the tensor {tensor.name!r} is misaligned")
        tensors[tensor.name] = tensor
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor) -> TensorInfo:
    name = cursor.name(MAX_TENSOR_NAME, "a tensor name")
    dimensions = cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise Malformed("corrupt", f"the tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    type_id, offset = cursor.u32(), cursor.u64()
    elements = _count_elements(name, shape)
    if offset > INT64_MAX:  # negative, for engines that read it as an int64
        raise Malformed("corrupt", f"the tensor {name!r} has the offset {offset}")
    kind = GGML_TYPES.get(type_id)
    if kind is None:
        # A type of the future (or a removed one): its size is unknown here, and whether it can be
        # used is for the engine to say. Name, shape, alignment and start are checked all the same.
        return TensorInfo(name, shape, f"type {type_id}", type_id, offset, None)
    row = shape[0] if shape else 1
    if row % kind.block:
        text = f"the tensor {name!r} has rows of {row}, no multiple of {kind.name}'s {kind.block}"
        raise Malformed("corrupt", text)
    size = elements // kind.block * kind.size
    if offset + size > INT64_MAX:
        raise Malformed("corrupt", f"the tensor {name!r} has the impossible size of {size} bytes")
    return TensorInfo(name, shape, kind.name, type_id, offset, size)


def _count_elements(name: str, shape: tuple[int, ...]) -> int:
    elements = 1
    for dimension in shape:
        elements *= dimension
        # Engines count in int64; a product beyond it wraps around in native code.
        if not 0 < elements <= INT64_MAX:
            raise Malformed("corrupt", f"the tensor {name!r} has the impossible shape {shape}")
    return elements
