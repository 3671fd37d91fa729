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


def write_tiny_heads(path: Path) -> Path:
    """Write a Qwen 3 whose attention heads have 32 numbers: one block of a quantised cache."""
    source, head = Source(13), 32
    weights = ends(source)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights |= attention(source, block, head) | feed_forward(source, block)
    more = {"attention.key_length": head, "attention.value_length": head}
    return write_gguf(path, decoder_metadata("qwen3", **more), weights)


def write_mamba(path: Path) -> Path:
    """Write a Mamba: a recurrent model, with a state instead of keys and values."""
    source, inner, state, rank = Source(17), 2 * WIDTH, 8, 2
    weights = ends(source)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights |= {
            f"{block}.attn_norm.weight": source.near_one(WIDTH),
            f"{block}.ssm_in.weight": source.matrix(2 * inner, WIDTH),
            f"{block}.ssm_conv1d.weight": source.matrix(inner, 4),
            f"{block}.ssm_conv1d.bias": source.normal((inner,), 0.1),
            f"{block}.ssm_x.weight": source.matrix(rank + 2 * state, inner),
            f"{block}.ssm_dt.weight": source.matrix(inner, rank),
            f"{block}.ssm_dt.bias": source.normal((inner,), 0.1),
            f"{block}.ssm_a": -np.abs(source.matrix(inner, state, 1)),
            f"{block}.ssm_d": source.near_one(inner),
            f"{block}.ssm_out.weight": source.matrix(WIDTH, inner),
        }
    more: dict[str, object] = {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    return write_gguf(path, decoder_metadata("mamba", **more), weights)


def write_lfm2(path: Path) -> Path:
    """Write an LFM 2: a hybrid, with a recurrent layer and one of attention."""
    source = Source(19)
    weights = ends(source)
    weights["token_embd_norm.weight"] = weights.pop("output_norm.weight")
    weights |= {
        "blk.0.attn_norm.weight": source.near_one(WIDTH),
        "blk.0.shortconv.conv.weight": source.matrix(WIDTH, 3),
        "blk.0.shortconv.in_proj.weight": source.matrix(3 * WIDTH, WIDTH),
        "blk.0.shortconv.out_proj.weight": source.matrix(WIDTH, WIDTH),
        **attention(source, "blk.1"),
    }
    for layer in range(LAYERS):
        weights |= feed_forward(source, f"blk.{layer}")
    more = {"attention.head_count_kv": array(I32, [0, KV_HEADS]), "shortconv.l_cache": 3}
    return write_gguf(path, decoder_metadata("lfm2", **more), weights)


WINDOW = 32
"""Tokens that a layer of `write_gemma` with a window sees."""


def write_gemma(path: Path) -> Path:
    """Write a Gemma 3, of whose layers every other one sees a sliding window alone."""
    source = Source(23)
    weights = ends(source) | {"output.weight": source.matrix(VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights |= attention(source, block) | feed_forward(source, block)
        weights[f"{block}.post_attention_norm.weight"] = source.near_one(WIDTH)
        weights[f"{block}.post_ffw_norm.weight"] = source.near_one(WIDTH)
    more = {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": 2}
    return write_gguf(path, decoder_metadata("gemma3", **more), weights)


def write_rwkv(path: Path) -> Path:
    """Write an RWKV 6: another recurrent model, with three states in each layer."""
    source, head, extra = Source(29), 8, 4
    weights = ends(source) | {
        "token_embd_norm.weight": source.near_one(WIDTH),
        "token_embd_norm.bias": source.normal((WIDTH,), 0.1),
        "output_norm.bias": source.normal((WIDTH,), 0.1),
        "output.weight": source.matrix(VOCABULARY, WIDTH),
    }
    for layer in range(LAYERS):
        weights |= _rwkv_layer(source, f"blk.{layer}", head, extra)
    more: dict[str, object] = {
        "attention.head_count": 0,
        "attention.head_count_kv": 0,
        "attention.layer_norm_epsilon": 1e-5,
        "wkv.head_size": head,
        "time_mix_extra_dim": extra,
        "time_decay_extra_dim": extra,
        "token_shift_count": 2,
    }
    return write_gguf(path, decoder_metadata("rwkv6", **more), weights)


def _rwkv_layer(source: Source, block: str, head: int, extra: int) -> Weights:
    square = ("time_mix_key", "time_mix_value", "time_mix_receptance", "time_mix_gate")
    weights: Weights = {
        f"{block}.{name}.weight": source.matrix(WIDTH, WIDTH)
        for name in (*square, "time_mix_output", "channel_mix_receptance")
    }
    for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
        weights[f"{block}.{name}.weight"] = source.near_one(WIDTH)
        weights[f"{block}.{name}.bias"] = source.normal((WIDTH,), 0.1)
    for name in ("time_mix_lerp_x", "channel_mix_lerp_k", "channel_mix_lerp_r"):
        weights[f"{block}.{name}.weight"] = source.normal((1, 1, WIDTH), 0.3)
    return weights | {
        f"{block}.time_mix_lerp_fused.weight": source.normal((5, 1, 1, WIDTH), 0.3),
        f"{block}.time_mix_w1.weight": source.matrix(5 * extra, WIDTH),
        f"{block}.time_mix_w2.weight": source.normal((5, WIDTH, extra), 0.3),
        f"{block}.time_mix_first.weight": source.matrix(WIDTH // head, head),
        f"{block}.time_mix_decay.weight": source.normal((WIDTH,), 0.5),
        f"{block}.time_mix_decay_w1.weight": source.matrix(extra, WIDTH),
        f"{block}.time_mix_decay_w2.weight": source.matrix(WIDTH, extra),
        f"{block}.channel_mix_key.weight": source.matrix(FEED, WIDTH),
        f"{block}.channel_mix_value.weight": source.matrix(WIDTH, FEED),
    }
