"""A model of 134 M parameters in Q8_0 with random weights: what small chat models cost to run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

WIDTH, LAYERS, HEADS, KV_HEADS, FEED, CONTEXT, TOKENS = 768, 12, 12, 12, 2048, 8192, 32_000
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5
F32, Q8_0 = 0, 8
BLOCK = 32


def write_model(path: Path) -> Path:
    """Write the model; its tokens are bytes, and made-up words that no text contains."""
    shapes = _shapes()
    pairs = _metadata()
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(pairs)) + b"".join(pairs)
    infos, place = b"", 0
    for name, (shape, kind) in shapes.items():
        infos += _text(name) + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, place)
        place += -(-_size(shape, kind) // BLOCK) * BLOCK
    with path.open("wb") as file:
        file.write(head + infos + b"\0" * (-len(head + infos) % BLOCK))
        for data in _weights(shapes):
            file.write(data + b"\0" * (-len(data) % BLOCK))
    return path


def _shapes() -> dict[str, tuple[tuple[int, ...], int]]:
    kv = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[tuple[int, ...], int]] = {
        "token_embd.weight": ((WIDTH, TOKENS), Q8_0),
        "output_norm.weight": ((WIDTH,), F32),
        "output.weight": ((WIDTH, TOKENS), Q8_0),
    }
    sizes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, kv),
        "attn_v": (WIDTH, kv),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (WIDTH, FEED),
        "ffn_up": (WIDTH, FEED),
        "ffn_down": (FEED, WIDTH),
    }
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = ((WIDTH,), F32)
        for name, shape in sizes.items():
            shapes[f"blk.{layer}.{name}.weight"] = (shape, Q8_0)
    return shapes


def _weights(shapes: dict[str, tuple[tuple[int, ...], int]]) -> Iterator[bytes]:
    import numpy as np

    source = np.random.default_rng(5)
    block = np.dtype([("scale", np.float16), ("values", np.int8, (BLOCK,))])
    for shape, kind in shapes.values():
        if kind == F32:
            yield np.ones(shape, np.float32).tobytes()
            continue
        data = np.zeros(shape[0] * shape[1] // BLOCK, block)
        data["scale"] = 0.03 / 64
        data["values"] = source.integers(-110, 110, (len(data), BLOCK), np.int8)
        yield data.tobytes()


def _size(shape: tuple[int, ...], kind: int) -> int:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    return count * 4 if kind == F32 else count // BLOCK * (BLOCK + 2)


def _metadata() -> list[bytes]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    letters = [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]
    words = [f"w{number:05}" for number in range(TOKENS - 258)]
    tokens = [*letters, "<s>", "</s>", *words]
    numbers = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.vocab_size": TOKENS,
        "general.file_type": 7,
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
    }
    texts = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.chat_template": TEMPLATE,
    }
    kinds = [1] * 256 + [3, 3] + [1] * len(words)
    return [
        *[_pair(key, STRING, _text(value)) for key, value in texts.items()],
        *[_pair(key, UINT32, struct.pack("<I", value)) for key, value in numbers.items()],
        _pair("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        _list("tokenizer.ggml.tokens", STRING, [_text(token) for token in tokens]),
        _list("tokenizer.ggml.token_type", INT32, [struct.pack("<i", kind) for kind in kinds]),
        _list("tokenizer.ggml.merges", STRING, [_text("\u0120 \u0120")]),
    ]


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _list(key: str, kind: int, items: list[bytes]) -> bytes:
    return _pair(key, ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))
