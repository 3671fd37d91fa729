"""Read and check GGUF model files in pure Python, before native code opens them.

Engines abort or crash on damaged files, and some load a truncated one without a word. This reader
believes no count, length or offset before it has compared it with the file's size, keeps its memory
bounded whatever the file claims, and says what is wrong in words. Weights are never read.

Source: the GGUF specification in ggml's `docs/gguf.md` (versions 2 and 3), and the stricter checks
of `ggml/src/gguf.cpp`, which llama.cpp applies to the same bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from aiplayground.errors import InvalidModelFile

from ._cursor import Cursor, Malformed
from ._file import GgufFile
from ._magic import byte_order_swapped, describe_stranger
from ._reader import (
    MAX_ARRAY,
    MAX_PAIRS,
    MAX_TENSORS,
    MetadataReader,
    first_twice,
    read_tensors,
)
from ._types import GgufArray, GgufLongText, GgufValue, TensorInfo

__all__ = [
    "GgufArray",
    "GgufError",
    "GgufFile",
    "GgufLongText",
    "GgufReason",
    "GgufValue",
    "TensorInfo",
    "check_vocabulary",
    "read_gguf",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
TOKENS = "tokenizer.ggml.tokens"
ARRAY_TYPE = 4  # bytes that name the type of an array's elements
MIN_PAIR = 8 + 1 + 4 + 1  # bytes: key length, shortest key, type, shortest value
MIN_TENSOR = 8 + 1 + 4 + 4 + 8  # bytes: name length, shortest name, dimensions, type, offset


class GgufReason(StrEnum):
    """What kind of thing is wrong with a model file."""

    MISSING = "missing"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    NOT_GGUF = "not_gguf"
    UNSUPPORTED_VERSION = "unsupported_version"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"


class GgufError(InvalidModelFile):
    """A file that no engine may open; the message names the cause and the next step.

    `details` has `path` and `reason`, as text.
    """

    def __init__(self, reason: GgufReason, path: Path, message: str) -> None:
        super().__init__(message, details={"path": str(path), "reason": reason.value})
        self.reason = reason
        self.path = path


def read_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Read and check the header of a GGUF file.

    Blocks on the disk: a few milliseconds for a small model, tens of them for one with a large
    vocabulary. Raises GgufError, and nothing else, for every file that is not sound.
    """
    path = Path(path)
    try:
        _check_regular(path)
        with path.open("rb") as file:
            return _read(path, file)
    except Malformed as error:
        raise _damaged(path, error) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_regular(path: Path) -> None:
    """Refuse folders and devices unopened: opening a named pipe would block."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a null character or half a character pair in the path
        raise _missing(path) from error
    if not stat.S_ISREG(mode):
        text = f"{path.name or path} is a folder or device, not a model file. Name the .gguf file."
        raise GgufError(GgufReason.NOT_A_FILE, path, text)


def _missing(path: Path) -> GgufError:
    text = f"{path.name} does not exist. Check the path, or download the model again."
    return GgufError(GgufReason.MISSING, path, text)


def _unreadable(path: Path, error: OSError) -> GgufError:
    text = f"{path.name} cannot be read ({error.strerror or error}). Check its permissions."
    return GgufError(GgufReason.UNREADABLE, path, text)


def _read(path: Path, file: BinaryIO) -> GgufFile:
    size = os.fstat(file.fileno()).st_size
    cursor = Cursor(file, size)
    start = cursor.take(min(size, 4))
    if start != MAGIC:
        text = f"{path.name} is not a GGUF file{describe_stranger(start)}"
        raise GgufError(GgufReason.NOT_GGUF, path, text)
    version = cursor.u32()
    _check_version(path, version)
    return _read_body(path, cursor, size, version)


def _check_version(path: Path, version: int) -> None:
    if version in VERSIONS:
        return
    text = f"{path.name} is a GGUF file of version {version}, and only 2 and 3 can be read. "
    if byte_order_swapped(version):
        text = f"{path.name} is a big-endian GGUF file, and only little-endian ones can be read. "
        text += "Download the little-endian one, or convert it with gguf_convert_endian.py."
    elif version < min(VERSIONS):
        text += "Such old files are no longer supported by any engine: download a newer conversion."
    else:
        text += "Update AI Playground, or download a conversion of version 3."
    raise GgufError(GgufReason.UNSUPPORTED_VERSION, path, text)


def _read_body(path: Path, cursor: Cursor, size: int, version: int) -> GgufFile:
    tensor_count = cursor.length(MAX_TENSORS, MIN_TENSOR, "tensors")
    pair_count = cursor.length(MAX_PAIRS, MIN_PAIR, "metadata values")
    reader = MetadataReader(cursor)
    metadata = reader.read(pair_count)
    alignment = _alignment(metadata)
    tensors = read_tensors(cursor, tensor_count, alignment)
    data_offset = -(-cursor.offset // alignment) * alignment
    _check_layout(tensors, data_offset, size)
    return GgufFile(
        path,
        size,
        version,
        alignment,
        data_offset,
        MappingProxyType(metadata),
        tensors,
        MappingProxyType(reader.types),
        MappingProxyType(reader.positions),
    )


def check_vocabulary(gguf: GgufFile) -> None:
    """Check that no two tokens of a model have the same text: llama.cpp ends the process there.

    Blocks on the disk, tens of milliseconds for a large vocabulary, so it is no part of listing
    models. Raises GgufError as `read_gguf` does.
    """
    if gguf.types.get(TOKENS) != "array[string]":
        return
    try:
        with gguf.path.open("rb") as file:
            cursor = Cursor(file, os.fstat(file.fileno()).st_size)
            cursor.skip(gguf.positions[TOKENS] + ARRAY_TYPE)
            twice = first_twice(cursor, cursor.length(MAX_ARRAY, 8, "tokens"))
        if twice is not None:
            raise Malformed("corrupt", f"its vocabulary has the token {twice!r} twice")
    except Malformed as error:
        raise _damaged(gguf.path, error) from error
    except OSError as error:
        raise _unreadable(gguf.path, error) from error


def _alignment(metadata: Mapping[str, GgufValue]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if isinstance(value, int) and value >= 8 and value.bit_count() == 1:
        return value
    raise Malformed("corrupt", f"its alignment {value} is no power of two from 8 on")


def _check_layout(tensors: tuple[TensorInfo, ...], data_offset: int, size: int) -> None:
    """Check that no tensor lies upon another or ends after the file.

    The padding after the last one may be missing: nobody reads it.
    """
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise Malformed("corrupt", f"the tensors {before!r} and {tensor.name!r} overlap")
        # One byte stands for a size that is unknown: it catches a start beyond the file.
        end, before = tensor.offset + (tensor.size or 1), tensor.name
    needed = data_offset + end if tensors else 0
    if needed > size:
        raise Malformed("truncated", f"it needs {needed} bytes and has {size}")


def _damaged(path: Path, error: Malformed) -> GgufError:
    if error.reason == "truncated":
        text = f"{path.name} is truncated: {error.text}. The download or copy stopped early: "
        return GgufError(GgufReason.TRUNCATED, path, text + "download it again.")
    text = f"{path.name} is corrupt: {error.text}. Download it again, or convert it again."
    return GgufError(GgufReason.CORRUPT, path, text)
