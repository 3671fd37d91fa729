"""The encoder of a tiny T5, and the same computed by numpy.

Source: Raffel et al., "Exploring the Limits of Transfer Learning"; the gated feed-forward is that
of T5 1.1. It has no scale in its attention, and distances between tokens in buckets.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plugins.llamacpp.tests.kinds import (
    HEAD,
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    Source,
    Weights,
    decoder_metadata,
    feed_forward,
    write_gguf,
)

BUCKETS, FARTHEST, EPSILON = 32, 128, 1e-5

Array = NDArray[Any]


def weights_of() -> Weights:
    source = Source(5)
    weights: Weights = {
        "token_embd.weight": source.matrix(VOCABULARY, WIDTH, 1),
        "enc.output_norm.weight": source.near_one(WIDTH),
        "enc.blk.0.attn_rel_b.weight": source.matrix(BUCKETS, HEADS),
    }
    for layer in range(LAYERS):
        block = f"enc.blk.{layer}"
        weights[f"{block}.attn_norm.weight"] = source.near_one(WIDTH)
        for name in ("attn_q", "attn_k", "attn_v"):
            weights[f"{block}.{name}.weight"] = source.matrix(HEADS * HEAD, WIDTH)
        weights[f"{block}.attn_o.weight"] = source.matrix(WIDTH, HEADS * HEAD)
        weights |= feed_forward(source, block)
    return weights


def write_t5_encoder(path: Path) -> Path:
    """Write the model, which says nothing about pooling."""
    more = {"attention.head_count_kv": HEADS, "attention.relative_buckets_count": BUCKETS}
    return write_gguf(path, decoder_metadata("t5encoder", **more), weights_of())


def vector(text: str) -> Array:
    """Return the mean of what the encoder makes of a text, of length 1."""
    weights = weights_of()
    tokens = list(text.encode())
    x: Array = weights["token_embd.weight"][tokens]
    for layer in range(LAYERS):
        block = f"enc.blk.{layer}"
        x = x + _attention(weights, block, _normed(x, weights[f"{block}.attn_norm.weight"]))
        x = x + _fed(weights, block, _normed(x, weights[f"{block}.ffn_norm.weight"]))
    pooled = _normed(x, weights["enc.output_norm.weight"]).mean(0)
    return np.asarray(pooled / np.linalg.norm(pooled))


def _normed(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight)


def _attention(weights: Weights, block: str, x: Array) -> Array:
    count = len(x)
    query, key, value = (
        (x @ weights[f"{block}.attn_{name}.weight"].T).reshape(count, HEADS, HEAD).swapaxes(0, 1)
        for name in "qkv"
    )
    buckets = [[_bucket(there - here) for there in range(count)] for here in range(count)]
    bias = weights["enc.blk.0.attn_rel_b.weight"][buckets].transpose(2, 0, 1)
    power = np.exp(query @ key.swapaxes(1, 2) + bias)
    mixed = power / power.sum(-1, keepdims=True) @ value
    joined = mixed.swapaxes(0, 1).reshape(count, -1)
    return np.asarray(joined @ weights[f"{block}.attn_o.weight"].T)


def _bucket(distance: int) -> int:
    """Return the bucket of a distance: half for each side, the far ones on a scale of powers."""
    half, near = BUCKETS // 2, BUCKETS // 4
    side = half if distance > 0 else 0
    distance = abs(distance)
    if distance < near:
        return side + distance
    far = math.log(distance / near) / math.log(FARTHEST / near) * (half - near)
    return side + min(near + int(far), half - 1)


def _fed(weights: Weights, block: str, x: Array) -> Array:
    gate = x @ weights[f"{block}.ffn_gate.weight"].T
    gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    up = x @ weights[f"{block}.ffn_up.weight"].T
    return np.asarray((gelu * up) @ weights[f"{block}.ffn_down.weight"].T)
