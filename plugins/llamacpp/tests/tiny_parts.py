"""Write what lies beside a tiny model: LoRA adapters, projectors, pictures; merge adapters."""

from __future__ import annotations

import base64
import io
import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from PIL import Image
from plugins.llamacpp.tests.tiny_model import (
    FLOAT32,
    INT32,
    STRING,
    TEMPLATE,
    UINT32,
    WIDTH,
    _array,
    _float,
    _metadata,
    _pair,
    _tensors,
    _text,
)

from aiplayground.gguf import read_gguf

BOOL, FLOAT64 = 7, 12


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


SIDE, PATCH, SIGHT, SEEN = 32, 8, 32, 64
"""Pixels of an image and of a patch; widths of the image encoder and of its inner layers."""


def _flag(key: str, value: bool) -> bytes:
    return _pair(key, BOOL, struct.pack("<B", value))


def _number(key: str, value: int) -> bytes:
    return _pair(key, UINT32, struct.pack("<I", value))


def projector_pairs(kind: str = "mlp", /, **changed: bytes) -> list[bytes]:
    """Return the metadata of a projector; a named pair replaces the usual one."""
    numbers = {
        "embedding_length": SIGHT,
        "feed_forward_length": SEEN,
        "block_count": 2,
        "projection_dim": WIDTH,
        "attention.head_count": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    usual = {name: _number(f"clip.vision.{name}", value) for name, value in numbers.items()}
    if kind == "gemma3":
        usual["scale"] = _number("clip.vision.projector.scale_factor", 1)
    half = [struct.pack("<f", 0.5)] * 3
    usual |= {
        "architecture": text_pair("general.architecture", "clip"),
        "sees": _flag("clip.has_vision_encoder", True),
        "kind": text_pair("clip.projector_type", kind),
        "gelu": _flag("clip.use_gelu", True),
        "epsilon": _float("clip.vision.attention.layer_norm_epsilon", 1e-5),
        "mean": _array("clip.vision.image_mean", FLOAT32, half),
        "std": _array("clip.vision.image_std", FLOAT32, half),
    }
    return [*(usual | changed).values()]


def projector_tensors(kind: str = "mlp", width: int = WIDTH, seed: int = 3) -> dict[str, Tensor]:
    """Return random weights of an image encoder, and of what fits it to a model's width."""
    source = random.Random(seed)
    patches = (SIDE // PATCH) ** 2
    tensors = {"v.patch_embd.weight": noise(source, PATCH, PATCH, 3, SIGHT)}
    if kind == "mlp":
        tensors["v.class_embd"] = noise(source, SIGHT)
        patches += 1
    if kind == "qwen2vl_merger":
        tensors["v.patch_embd.weight.1"] = noise(source, PATCH, PATCH, 3, SIGHT)
    else:
        tensors["v.position_embd.weight"] = noise(source, SIGHT, patches)
    for layer in range(2):
        for name, rows, columns in _LAYER:
            tensors[f"v.blk.{layer}.{name}.weight"] = noise(source, rows, columns)
            tensors[f"v.blk.{layer}.{name}.bias"] = noise(source, columns)
        for norm in ("ln1", "ln2"):
            tensors[f"v.blk.{layer}.{norm}.weight"] = noise(source, SIGHT, centre=1.0)
            tensors[f"v.blk.{layer}.{norm}.bias"] = noise(source, SIGHT)
    return tensors | _last_tensors(source, kind, width)


_LAYER = [
    *((name, SIGHT, SIGHT) for name in ("attn_q", "attn_k", "attn_v", "attn_out")),
    ("ffn_up", SIGHT, SEEN),
    ("ffn_down", SEEN, SIGHT),
]


def _last_tensors(source: random.Random, kind: str, width: int) -> dict[str, Tensor]:
    if kind == "gemma3":
        return {
            "v.post_ln.weight": noise(source, SIGHT, centre=1.0),
            "v.post_ln.bias": noise(source, SIGHT),
            "mm.input_projection.weight": noise(source, width, SIGHT),
            "mm.soft_emb_norm.weight": noise(source, SIGHT, centre=1.0),
        }
    inner = SIGHT if kind == "mlp" else 4 * SIGHT  # two by two patches become one
    return {
        "mm.0.weight": noise(source, inner, SEEN),
        "mm.0.bias": noise(source, SEEN),
        "mm.2.weight": noise(source, SEEN, width),
        "mm.2.bias": noise(source, width),
    }


def write_projector(path: Path, kind: str = "mlp") -> Path:
    """Write a projector with random weights for the tiny model."""
    return write_gguf(path, projector_pairs(kind), projector_tensors(kind))


def write_rows_model(path: Path) -> Path:
    """Write the tiny model as one whose positions have rows and columns (M-RoPE)."""
    source = random.Random(11)
    pairs = [_renamed(pair) for pair in _metadata(TEMPLATE, None, None)]
    sections = [struct.pack("<i", size) for size in (2, 3, 3, 0)]
    pairs.append(_array("qwen2vl.rope.dimension_sections", INT32, sections))
    tensors = {
        name: noise(source, *shape) if len(shape) > 1 else Tensor(shape, [1.0] * shape[0])
        for name, shape in _tensors().items()
    }
    for name, tensor in list(tensors.items()):
        if name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            tensors[name.replace("weight", "bias")] = noise(source, tensor.shape[1])
    return write_gguf(path, pairs, tensors)


def _renamed(pair: bytes) -> bytes:
    (length,) = struct.unpack("<Q", pair[:8])
    key, rest = pair[8 : 8 + length].decode(), pair[8 + length :]
    if key == "general.architecture":
        return text_pair(key, "qwen2vl")
    return _text(key.replace("llama.", "qwen2vl.", 1)) + rest


def picture(seed: int, width: int = 40, height: int = 40, form: str = "PNG") -> bytes:
    """Return an image file with random pixels."""
    pixels = random.Random(seed).randbytes(width * height * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(file, form)
    return file.getvalue()


def data_url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def shown(*pieces: str | bytes) -> list[dict[str, Any]]:
    """Return a message of the user with texts and images."""
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image_url", "image_url": {"url": data_url(piece)}}
        for piece in pieces
    ]
    return [{"role": "user", "content": parts}]
