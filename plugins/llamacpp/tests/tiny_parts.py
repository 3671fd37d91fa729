"""Write what lies beside a tiny model: LoRA adapters, and models with an adapter merged in."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from plugins.llamacpp.tests.tiny_model import STRING, _float, _pair, _text

from aiplayground.gguf import read_gguf

FLOAT64 = 12


def text_pair(key: str, value: str) -> bytes:
    return _pair(key, STRING, _text(value))


@dataclass(frozen=True)
class Tensor:
    """Numbers of 32 bits; the first dimension is the length of a row."""

    shape: tuple[int, ...]
    data: Sequence[float]


def noise(source: random.Random, *shape: int, spread: float = 0.25, centre: float = 0.0) -> Tensor:
    return Tensor(shape, [source.gauss(centre, spread) for _ in range(prod(shape))])


def write_gguf(path: Path, pairs: Sequence[bytes], tensors: Mapping[str, Tensor]) -> Path:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    infos, data = b"", bytearray()
    for name, tensor in tensors.items():
        infos += _text(name) + struct.pack("<I", len(tensor.shape))
        infos += b"".join(struct.pack("<Q", size) for size in tensor.shape)
        infos += struct.pack("<IQ", 0, len(data))
        data += array("f", tensor.data).tobytes()
        data += b"\0" * (-len(data) % 32)
    body = head + infos
    path.write_bytes(body + b"\0" * (-len(body) % 32) + bytes(data))
    return path


RANK, ALPHA = 4, 6.0
ADAPTED = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output.weight")


def adapter_tensors(model: Path, seed: int = 5) -> dict[str, Tensor]:
    """Return both halves for some of the model's matrices."""
    source, tensors = random.Random(seed), dict[str, Tensor]()
    for info in read_gguf(model).tensors:
        if info.name in ADAPTED:
            width, height = info.shape
            tensors[f"{info.name}.lora_a"] = noise(source, width, RANK)
            tensors[f"{info.name}.lora_b"] = noise(source, RANK, height)
    return tensors


def adapter_pairs(**changed: bytes) -> list[bytes]:
    """Return the metadata of an adapter; a named pair replaces the usual one."""
    usual = {
        "type": text_pair("general.type", "adapter"),
        "architecture": text_pair("general.architecture", "llama"),
        "kind": text_pair("adapter.type", "lora"),
        "alpha": _float("adapter.lora.alpha", ALPHA),
    }
    return [*(usual | changed).values()]


def write_adapter(path: Path, model: Path) -> Path:
    return write_gguf(path, adapter_pairs(), adapter_tensors(model))


def write_merged(path: Path, model: Path, scale: float) -> Path:
    """Write the model with the adapter of `adapter_tensors` in its weights, at this scale."""
    file, halves = read_gguf(model), adapter_tensors(model)
    data = bytearray(model.read_bytes())
    for info in file.tensors:
        if info.name not in ADAPTED:
            continue
        width, height = info.shape
        a, b = halves[f"{info.name}.lora_a"].data, halves[f"{info.name}.lora_b"].data
        start = file.data_offset + info.offset
        end = start + 4 * width * height
        weights = array("f", bytes(data[start:end]))
        for row in range(height):
            for column in range(width):
                product = sum(b[row * RANK + n] * a[n * width + column] for n in range(RANK))
                weights[row * width + column] += scale * ALPHA / RANK * product
        data[start:end] = weights.tobytes()
    path.write_bytes(data)
    return path
