"""A tiny BERT, and the same computed by numpy.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers"; the classifier's
heads are those of Hugging Face's `BertForSequenceClassification` and RoBERTa's.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plugins.llamacpp.tests.kinds import CONTEXT, Source, Weights, write_gguf
from tests.gguf_files import I32, STRING, array

MEAN, CLS, LAST, RANK = 1, 2, 3, 4  # enum llama_pooling_type
WIDTH, LAYERS, HEADS, FEED = 32, 2, 4, 64
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BEGIN, END = 2, 3
LETTERS = string.ascii_lowercase
TOKENS = [*MARKS, *["\u2581" + letter for letter in LETTERS], *LETTERS]
EPSILON = 1e-12

Array = NDArray[Any]


@dataclass(frozen=True)
class Bert:
    """A model with random weights; with `head` it has a classifier with one score.

    `twice`: two marks stand between a query and a document.
    """

    pooling: int | None = MEAN
    head: bool = False
    dense: bool = False
    form: str = ""
    twice: bool = False
    seed: int = 3

    @property
    def weights(self) -> Weights:
        source = Source(self.seed)
        weights: Weights = {
            "token_embd.weight": source.matrix(len(TOKENS), WIDTH, 1),
            "token_types.weight": source.matrix(2, WIDTH),
            "position_embd.weight": source.matrix(CONTEXT, WIDTH),
            **_norm(source, "token_embd_norm"),
        }
        for layer in range(LAYERS):
            weights |= _layer(source, f"blk.{layer}")
        if self.dense:
            weights |= _linear(source, "cls", WIDTH, WIDTH)
        if self.head:
            weights |= _linear(source, "cls.output", WIDTH, 1)
        return weights

    def write(self, path: Path) -> Path:
        metadata: dict[str, object] = {
            "general.architecture": "bert",
            "general.name": "tiny bert",
            "bert.block_count": LAYERS,
            "bert.context_length": CONTEXT,
            "bert.embedding_length": WIDTH,
            "bert.feed_forward_length": FEED,
            "bert.attention.head_count": HEADS,
            "bert.attention.layer_norm_epsilon": EPSILON,
            "bert.attention.causal": False,
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.pre": "jina-v2-en",
            "tokenizer.ggml.tokens": array(STRING, TOKENS),
            "tokenizer.ggml.token_type": array(I32, [3] * 5 + [1] * (len(TOKENS) - 5)),
            "tokenizer.ggml.token_type_count": 2,
            "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.unknown_token_id": 1,
            "tokenizer.ggml.bos_token_id": BEGIN,
            "tokenizer.ggml.eos_token_id": END,
            "tokenizer.ggml.seperator_token_id": END,
            "tokenizer.ggml.mask_token_id": 4,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.add_sep_token": self.twice,
        }
        if self.pooling is not None:
            metadata["bert.pooling_type"] = self.pooling
        if self.form:
            metadata["tokenizer.chat_template.rerank"] = self.form
        return write_gguf(path, metadata, self.weights)

    def vector(self, text: str) -> Array:
        """Return the embedding of a text of lower-case words, of length 1."""
        hidden = _hidden(self.weights, [BEGIN, *word_tokens(text), END])
        pooled = {MEAN: hidden.mean(0), CLS: hidden[0], LAST: hidden[-1]}[self.pooling or MEAN]
        return np.asarray(pooled / np.linalg.norm(pooled))

    def score(self, query: str, document: str) -> float:
        """Return the classifier's score of a pair."""
        first, second = word_tokens(query), word_tokens(document)
        between = [END, END] if self.twice else [END]
        return self.score_of([BEGIN, *first, *between, *second, END])

    def score_of(self, tokens: list[int]) -> float:
        """Return the classifier's score of a sequence."""
        weights = self.weights
        pooled = _hidden(weights, tokens)[0]
        if self.dense:
            pooled = np.tanh(_apply(weights, "cls", pooled))
        return float(_apply(weights, "cls.output", pooled)[0])


def word_tokens(text: str) -> list[int]:
    return [
        TOKENS.index(piece) for word in text.split() for piece in ("\u2581" + word[0], *word[1:])
    ]


def _norm(source: Source, name: str) -> Weights:
    return {f"{name}.weight": source.near_one(WIDTH), f"{name}.bias": source.normal((WIDTH,), 0.1)}


def _linear(source: Source, name: str, inputs: int, outputs: int) -> Weights:
    return {
        f"{name}.weight": source.matrix(outputs, inputs),
        f"{name}.bias": source.normal((outputs,), 0.1),
    }


def _layer(source: Source, block: str) -> Weights:
    weights: Weights = {}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights |= _linear(source, f"{block}.{name}", WIDTH, WIDTH)
    weights |= _linear(source, f"{block}.ffn_up", WIDTH, FEED)
    weights |= _linear(source, f"{block}.ffn_down", FEED, WIDTH)
    for name in ("attn_output_norm", "layer_output_norm"):
        weights |= _norm(source, f"{block}.{name}")
    return weights


def _apply(weights: Weights, name: str, x: Array) -> Array:
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _normed(weights: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _attention(weights: Weights, block: str, x: Array) -> Array:
    def heads(name: str) -> Array:
        return _apply(weights, f"{block}.{name}", x).reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    query, key, value = heads("attn_q"), heads("attn_k"), heads("attn_v")
    power = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS))
    mixed = power / power.sum(-1, keepdims=True) @ value
    return _apply(weights, f"{block}.attn_output", mixed.transpose(1, 0, 2).reshape(len(x), WIDTH))


def _hidden(weights: Weights, tokens: list[int]) -> Array:
    x: Array = weights["token_embd.weight"][tokens] + weights["token_types.weight"][0]
    x = _normed(weights, "token_embd_norm", x + weights["position_embd.weight"][: len(tokens)])
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        attended = x + _attention(weights, block, x)
        x = _normed(weights, f"{block}.attn_output_norm", attended)
        fed = _apply(weights, f"{block}.ffn_down", _gelu(_apply(weights, f"{block}.ffn_up", x)))
        x = _normed(weights, f"{block}.layer_output_norm", x + fed)
    return x
