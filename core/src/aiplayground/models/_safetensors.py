"""Read and check the header of a safetensors file in pure Python, with bounded memory.

Source: the format's description in the README of huggingface/safetensors: eight bytes with the
length of a JSON header, the header, the data.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER = 32 << 20
"""Bytes of a header that are read: those of models with 100,000 tensors take 10 MB."""

MAX_METADATA = 256
"""Characters of a metadata value that are kept."""

_LENGTH = 8


class BadSafetensors(Exception):
    """What is wrong with a file; `truncated` says whether it ends early."""

    def __init__(self, text: str, *, truncated: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.truncated = truncated


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself: shapes of its tensors by name, and its metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    dtype: str | None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(map(prod, self.shapes.values()))


def read_header(path: Path) -> Header:
    """Read a file's header, and compare what it claims with the file's size.

    Raises `BadSafetensors` and `OSError`.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH:
            raise BadSafetensors("it has no header", truncated=True)
        if length > MAX_HEADER:
            # Anything else that is called so begins with bytes that make a huge number.
            raise BadSafetensors("it does not begin as a safetensors file does")
        if length > size - _LENGTH:
            raise BadSafetensors(
                f"its header needs {length} bytes and {size - _LENGTH} are there", truncated=True
            )
        data = file.read(length)
    return _header(_parsed(data), size - _LENGTH - length)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSafetensors("its header is no JSON") from error
    if not isinstance(found, dict):
        raise BadSafetensors("its header is no JSON object")
    return found


def _header(found: dict[str, Any], room: int) -> Header:
    metadata = found.pop("__metadata__", {})
    shapes: dict[str, tuple[int, ...]] = {}
    weights: Counter[str] = Counter()
    end = 0
    for name, tensor in found.items():
        dtype, shape, last = _tensor(name, tensor)
        shapes[name] = shape
        weights[dtype] += prod(shape)
        end = max(end, last)
    if end > room:
        raise BadSafetensors(f"its tensors need {end} bytes and {room} are there", truncated=True)
    texts = metadata.items() if isinstance(metadata, dict) else ()
    kept = {str(key): str(value)[:MAX_METADATA] for key, value in texts}
    return Header(shapes, kept, weights.most_common(1)[0][0] if weights else None)


def _tensor(name: str, tensor: Any) -> tuple[str, tuple[int, ...], int]:
    try:
        dtype, shape = str(tensor["dtype"]), tuple(map(_natural, tensor["shape"]))
        begin, end = map(_natural, tensor["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadSafetensors(f"its tensor {name[:80]!r} is not described as it should") from error
    if begin > end:
        raise BadSafetensors(f"its tensor {name[:80]!r} ends before it begins")
    return dtype, shape, end


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(value)
    return value
