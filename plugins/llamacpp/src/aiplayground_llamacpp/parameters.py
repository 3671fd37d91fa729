"""Which request fields this backend honours: said to the kernel and to the worker alike."""

from __future__ import annotations

PARAMETERS = frozenset(
    {
        "chat_template_kwargs",
        "frequency_penalty",
        "grammar",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "repeat_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_n",
        "top_p",
        "typical_p",
    }
)
