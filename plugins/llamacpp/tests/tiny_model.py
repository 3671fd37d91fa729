"""Write a tiny language model with random weights, with `struct` alone."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ raise_exception('tools are not known here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"
)
SPECIALS = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
WIDTH, LAYERS, HEADS, KV_HEADS, FEED, CONTEXT = 64, 2, 4, 2, 128, 512


def byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _float(key: str, value: float) -> bytes:
    return _pair(key, FLOAT32, struct.pack("<f", value))


def _array(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    head = struct.pack("<IQ", kind, len(items))
    return _pair(key, ARRAY, head + b"".join(items))


def _metadata(template: str | None, temperature: float | None, pooling: int | None) -> list[bytes]:
    tokens = byte_letters() + SPECIALS
    numbers = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(tokens),
        "general.file_type": 0,
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
    }
    if pooling is not None:
        numbers["llama.pooling_type"] = pooling
    texts = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
    }
    if template is not None:
        texts["tokenizer.chat_template"] = template
    extra = [] if temperature is None else [_float("general.sampling.temp", temperature)]
    kinds = [1] * 256 + [3] * len(SPECIALS)
    return [
        *[_pair(key, STRING, _text(value)) for key, value in texts.items()],
        *[_pair(key, UINT32, struct.pack("<I", value)) for key, value in numbers.items()],
        *extra,
        _float("llama.attention.layer_norm_rms_epsilon", 1e-5),
        _array("tokenizer.ggml.tokens", STRING, [_text(token) for token in tokens]),
        _array("tokenizer.ggml.token_type", INT32, [struct.pack("<i", kind) for kind in kinds]),
        _array("tokenizer.ggml.merges", STRING, [_text("\u0120 t"), _text("a b")]),
    ]


def _tensors() -> dict[str, tuple[int, ...]]:
    kv = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, 256 + len(SPECIALS)),
        "output_norm.weight": (WIDTH,),
        "output.weight": (WIDTH, 256 + len(SPECIALS)),
    }
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, kv),
            "attn_v": (WIDTH, kv),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (WIDTH, FEED),
            "ffn_up": (WIDTH, FEED),
            "ffn_down": (FEED, WIDTH),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in parts.items()}
    return shapes


def write_model(
    path: Path,
    template: str | None = TEMPLATE,
    seed: int = 7,
    temperature: float | None = None,
    pooling: int | None = None,
) -> Path:
    """Write a llama model with random weights over a vocabulary of bytes; it chatters at random.

    With a kind of pooling (llama.cpp's `enum llama_pooling_type`) it makes embeddings.
    """
    source = random.Random(seed)
    pairs = _metadata(template, temperature, pooling)
    shapes = _tensors()
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(pairs)) + b"".join(pairs)
    infos, data = b"", bytearray()
    for name, shape in shapes.items():
        infos += _text(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in shape)
        infos += struct.pack("<IQ", 0, len(data))
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        spread = 0.25 if len(shape) > 1 else 0.0
        centre = 0.0 if len(shape) > 1 else 1.0
        data += array("f", [source.gauss(centre, spread) for _ in range(count)]).tobytes()
        data += b"\0" * (-len(data) % 32)
    body = head + infos
    path.write_bytes(body + b"\0" * (-len(body) % 32) + bytes(data))
    return path
