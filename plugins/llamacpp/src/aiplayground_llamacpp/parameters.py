"""Which request fields this backend honours: said to the kernel and to the worker alike."""

from __future__ import annotations

PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "ignore_eos",
        "max_tokens",
        "min_p",
        "presence_penalty",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
