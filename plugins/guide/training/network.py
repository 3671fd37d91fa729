"""The guide's network: the Llama architecture, as small as it gets.

Tensors are laid out as llama.cpp expects them of architecture ``llama``: rotary embeddings turn
neighbouring pairs of dimensions, so the query and key weights need no permutation on export.
"""

# PyTorch is installed for training alone; without it, its classes are Any to mypy.
# mypy: disallow-subclassing-any=False

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


@dataclass(frozen=True)
class Shape:
    """Hyperparameters; the names in comments are the GGUF keys."""

    vocab: int = 1408  # llama.vocab_size
    hidden: int = 128  # llama.embedding_length
    layers: int = 4  # llama.block_count
    heads: int = 4  # llama.attention.head_count
    kv_heads: int = 2  # llama.attention.head_count_kv
    feed_forward: int = 384  # llama.feed_forward_length
    context: int = 1024  # llama.context_length
    rope_base: float = 10000.0  # llama.rope.freq_base
    norm_eps: float = 1e-5  # llama.attention.layer_norm_rms_epsilon

    @property
    def head(self) -> int:
        """Dimensions of one attention head (llama.rope.dimension_count)."""
        return self.hidden // self.heads


def rope_turns(shape: Shape, length: int) -> Tensor:
    """The turns of the rotary embedding, complex numbers of length 1, ``[length, head / 2]``."""
    frequency = shape.rope_base ** (-torch.arange(0, shape.head, 2) / shape.head)
    angle = torch.outer(torch.arange(length), frequency)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each pair (2i, 2i+1) of the last dimension of ``[batch, heads, time, head]``."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


class Block(nn.Module):
    """Grouped-query attention and a gated feed-forward layer, each behind an RMS norm."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.kv_heads * shape.head
        self.attn_norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.attn_q = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.attn_k = nn.Linear(shape.hidden, kv, bias=False)
        self.attn_v = nn.Linear(shape.hidden, kv, bias=False)
        self.attn_output = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.ffn_gate = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, shape.hidden, bias=False)
        self.dropout = nn.Dropout(dropout)

    def attention(self, x: Tensor, turns: Tensor) -> Tensor:
        """Causal self-attention over ``[batch, time, hidden]``."""
        batch, time, _ = x.shape
        split = (batch, time, -1, self.shape.head)
        q = rotate(self.attn_q(x).view(split).transpose(1, 2), turns)
        k = rotate(self.attn_k(x).view(split).transpose(1, 2), turns)
        v = self.attn_v(x).view(split).transpose(1, 2)
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = fn.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(batch, time, -1))
        return out

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """One layer over ``[batch, time, hidden]``."""
        x = x + self.dropout(self.attention(self.attn_norm(x), turns))
        y = self.ffn_norm(x)
        out: Tensor = x + self.dropout(self.ffn_down(fn.silu(self.ffn_gate(y)) * self.ffn_up(y)))
        return out


class Guide(nn.Module):
    """The whole network; the output layer is the token embedding (tied)."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.hidden)
        self.blk = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.dropout = nn.Dropout(dropout)
        for name, weight in self.named_parameters():
            if "norm" not in name:
                small = name.endswith(("attn_output.weight", "ffn_down.weight"))
                scale = (2 * shape.layers) ** -0.5 if small else 1.0
                nn.init.normal_(weight, std=0.06 * scale)

    def forward(self, ids: Tensor, where: Tensor | None = None) -> Tensor:
        """Logits ``[batch, time, vocab]`` for token ids ``[batch, time]``.

        With ``where``, a mask ``[batch, time]``, those of the chosen places alone: ``[n, vocab]``.
        """
        turns = rope_turns(self.shape, ids.shape[1])
        x = self.dropout(self.token_embd(ids))
        for block in self.blk:
            x = block(x, turns)
        chosen = x if where is None else x[where]
        return fn.linear(self.output_norm(chosen), self.token_embd.weight)

    def parameter_count(self) -> int:
        """Number of weights; the tied embedding counts once."""
        return sum(weight.numel() for weight in self.parameters())
