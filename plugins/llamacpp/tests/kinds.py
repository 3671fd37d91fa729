"""Tiny models of other kinds than `tiny_model`'s, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from plugins.llamacpp.tests.tiny_model import SPECIALS, byte_letters
from tests.gguf_files import F32_TENSOR, I32, STRING, array, text, u32, u64, value_of

Weights = dict[str, NDArray[np.float32]]

CONTEXT = 256


def write_gguf(path: Path, metadata: Mapping[str, object], tensors: Weights) -> Path:
    """Write a file of 32-bit floats; a tensor's axes are numpy's, the reverse of GGUF's."""
    head = [b"GGUF", u32(3), u64(len(tensors)), u64(len(metadata))]
    for key, value in metadata.items():
        raw = value_of(value)
        head += [text(key), u32(raw.type_id), raw.data]
    infos, data = [], b""
    for name, tensor in tensors.items():
        sizes = [u64(size) for size in reversed(tensor.shape)]
        infos += [text(name), u32(len(sizes)), *sizes, u32(F32_TENSOR), u64(len(data))]
        data += tensor.astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    body = b"".join(head + infos)
    path.write_bytes(body + bytes(-len(body) % 32) + data)
    return path


def byte_vocabulary() -> dict[str, object]:
    """Return the metadata of a tokenizer that has a token for each byte."""
    tokens = byte_letters() + SPECIALS
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": array(STRING, tokens),
        "tokenizer.ggml.token_type": array(I32, [1] * 256 + [3] * len(SPECIALS)),
        "tokenizer.ggml.merges": array(STRING, ["\u0120 t", "a b"]),
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
    }


VOCABULARY = 256 + len(SPECIALS)


class Source:
    """Random weights, always the same for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, spread: float = 0.25) -> NDArray[np.float32]:
        return self.normal((rows, columns), spread)

    def normal(self, shape: tuple[int, ...], spread: float) -> NDArray[np.float32]:
        return self._random.normal(0, spread, shape).astype(np.float32)

    def near_one(self, size: int) -> NDArray[np.float32]:
        return (1 + self.normal((size,), 0.1)).astype(np.float32)


WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, FEED = 32, 2, 4, 2, 8, 64


def decoder_metadata(architecture: str, **more: object) -> dict[str, object]:
    """Return the metadata of a transformer that writes; `more` goes under its prefix."""
    own: dict[str, object] = {
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": FEED,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **more,
    }
    return {
        "general.architecture": architecture,
        "general.name": f"tiny {architecture}",
        **{f"{architecture}.{key}": value for key, value in own.items()},
        **byte_vocabulary(),
    }


def attention(source: Source, block: str, head: int = HEAD) -> Weights:
    """Return the attention of a layer, with norms for each head."""
    return {
        f"{block}.attn_norm.weight": source.near_one(WIDTH),
        f"{block}.attn_q.weight": source.matrix(HEADS * head, WIDTH),
        f"{block}.attn_k.weight": source.matrix(KV_HEADS * head, WIDTH),
        f"{block}.attn_v.weight": source.matrix(KV_HEADS * head, WIDTH),
        f"{block}.attn_q_norm.weight": source.near_one(head),
        f"{block}.attn_k_norm.weight": source.near_one(head),
        f"{block}.attn_output.weight": source.matrix(WIDTH, HEADS * head),
    }


def feed_forward(source: Source, block: str) -> Weights:
    """Return the other half of a layer."""
    return {
        f"{block}.ffn_norm.weight": source.near_one(WIDTH),
        f"{block}.ffn_gate.weight": source.matrix(FEED, WIDTH),
        f"{block}.ffn_up.weight": source.matrix(FEED, WIDTH),
        f"{block}.ffn_down.weight": source.matrix(WIDTH, FEED),
    }


def ends(source: Source) -> Weights:
    """Return what is before and after the layers; the output's weights are the input's."""
    return {
        "token_embd.weight": source.matrix(VOCABULARY, WIDTH, 1),
        "output_norm.weight": source.near_one(WIDTH),
    }


def write_reranker(path: Path) -> Path:
    """Write a Qwen 3 with two classes: it reads from left to right, and ranks."""
    source = Source(11)
    weights = ends(source) | {"cls.output.weight": source.matrix(2, WIDTH)}
    for layer in range(LAYERS):
        weights |= attention(source, f"blk.{layer}") | feed_forward(source, f"blk.{layer}")
    labels = array(STRING, ["yes", "no"])
    metadata = decoder_metadata("qwen3", **{"classifier.output_labels": labels, "pooling_type": 4})
    metadata["tokenizer.chat_template.rerank"] = "<|user|>{query} {document}<|assistant|>"
    return write_gguf(path, metadata, weights)


def write_t5_encoder(path: Path) -> Path:
    """Write the encoder of a T5, which says nothing about pooling."""
    source = Source(5)
    weights: Weights = {
        "token_embd.weight": source.matrix(VOCABULARY, WIDTH, 1),
        "enc.output_norm.weight": source.near_one(WIDTH),
        "enc.blk.0.attn_rel_b.weight": source.matrix(32, HEADS),
    }
    for layer in range(LAYERS):
        block = f"enc.blk.{layer}"
        weights |= {
            f"{block}.attn_norm.weight": source.near_one(WIDTH),
            f"{block}.attn_q.weight": source.matrix(HEADS * HEAD, WIDTH),
            f"{block}.attn_k.weight": source.matrix(HEADS * HEAD, WIDTH),
            f"{block}.attn_v.weight": source.matrix(HEADS * HEAD, WIDTH),
            f"{block}.attn_o.weight": source.matrix(WIDTH, HEADS * HEAD),
            **feed_forward(source, block),
        }
    more = {"attention.head_count_kv": HEADS, "attention.relative_buckets_count": 32}
    return write_gguf(path, decoder_metadata("t5encoder", **more), weights)


def write_tiny_heads(path: Path) -> Path:
    """Write a Qwen 3 whose attention heads have 32 numbers: one block of a quantised cache."""
    source, head = Source(13), 32
    weights = ends(source)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights |= attention(source, block, head) | feed_forward(source, block)
    more = {"attention.key_length": head, "attention.value_length": head}
    return write_gguf(path, decoder_metadata("qwen3", **more), weights)
