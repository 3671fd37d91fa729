"""From a request to the body that `llama-server` takes: pure.

The order and the values of the samplers are those of the other engine, all told, so that what a
version of llama-server does by default plays no part. Source of the fields: "POST /completion" in
`tools/server/README.md` of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiplayground_llamacpp.sampling import SamplerPlan, Step

from .seeing import Scene

FIELDS = ("content", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings/cache_n")
"""What the last event of an answer tells; else it repeats the whole prompt."""

_NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "penalties": (
        "penalties",
        ("", "repeat_last_n", "repeat_penalty", "frequency_penalty", "presence_penalty"),
    ),
    "top_k": ("top_k", ("top_k",)),
    "typical": ("typ_p", ("typical_p", "min_keep")),
    "top_p": ("top_p", ("top_p", "min_keep")),
    "min_p": ("min_p", ("min_p", "min_keep")),
    "temp": ("temperature", ("temperature",)),
    "greedy": ("temperature", ()),
    "dist": ("", ("seed",)),
}
"""The samplers by their names here: by which name they go there, and the fields of their values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done; as with the other engine, but for `shown`.

    `limit` is the most tokens that the answer may have, `size` what the context holds. With images
    there is a `scene` instead of a prompt. `shown` are texts of control tokens that appear in the
    answer.
    """

    prompt: Sequence[int]
    plan: SamplerPlan
    limit: int
    size: int
    scene: Scene | None = None
    stops: Sequence[str] = ()
    answers: int = 1
    logprobs: int | None = None
    shown: Sequence[str] = ()


def body_of(task: Task, index: int) -> dict[str, Any]:
    """Return the body for one of the answers of a task.

    Stop texts are not in it: they are looked for where the text arrives.
    """
    plan = task.plan.numbered(index)
    body: dict[str, Any] = {
        "prompt": _prompt(task),
        "n_predict": task.limit,
        "stream": True,
        "cache_prompt": True,
        "response_fields": FIELDS,
        **sampler_fields(plan.steps),
    }
    if task.stops or task.scene is not None:
        # Such an answer may be given up before its last event, which has the figures.
        body["timings_per_token"] = True
    if plan.ban_end:
        body["ignore_eos"] = True
    if plan.biases:
        body["logit_bias"] = [[token, _bias(value)] for token, value in plan.biases]
    if plan.grammar is not None:
        body["grammar"] = plan.grammar
    if task.shown:
        body["preserved_tokens"] = list(task.shown)
    if task.logprobs is not None:
        body["n_probs"] = max(1, task.logprobs)
    return body


def _prompt(task: Task) -> list[int] | dict[str, Any]:
    if task.scene is None:
        return list(task.prompt)
    return {"prompt_string": task.scene.text, "multimodal_data": list(task.scene.files)}


def sampler_fields(steps: Iterable[Step]) -> dict[str, Any]:
    """Return the fields for a chain of samplers."""
    fields: dict[str, Any] = {"temperature": 0.0}
    names: list[str] = []
    for step in steps:
        name, parameters = _NAMES[step.name]
        names += [name] if name else []
        told = zip(parameters, step.arguments, strict=False)
        fields |= {field: _number(field, value) for field, value in told if field}
    return {**fields, "samplers": names}


def _number(field: str, value: float) -> float:
    return int(value) if field in ("repeat_last_n", "top_k", "min_keep", "seed") else value


def _bias(value: float) -> float | bool:
    return False if math.isinf(value) else value
