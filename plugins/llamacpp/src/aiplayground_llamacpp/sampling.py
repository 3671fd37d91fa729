"""Which samplers a request asks for, as plain values: pure, and tested without a model.

The order is that of llama.cpp's own server. Sources: `include/llama.h` ("Sampling API") and
`common/sampling.cpp`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from aiplayground.errors import InvalidParameters

if TYPE_CHECKING:
    from aiplayground.types import Sampling

PENALTY_WINDOW = 64
"""How many of the last tokens the penalties look at (llama.cpp's default)."""

GREEDY_BELOW = 1e-4
"""A temperature below this picks the likeliest token; dividing by it would overflow."""

SMALLEST_PENALTY = 1e-3
"""A repeat penalty nearer to zero would become zero or infinity in 32-bit arithmetic."""

NEVER = -100.0
"""A bias that bans a token, as in OpenAI's API."""

DEFAULTS: Mapping[str, float] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""llama.cpp's own defaults, where neither request nor model file says otherwise."""

METADATA_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}
"""Where a model file says how its makers want it sampled."""


class Step(NamedTuple):
    """One sampler: the name of its `llama_sampler_init_…` function and the arguments."""

    name: str
    arguments: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplerPlan:
    """A chain of samplers. `ban_end`: never choose a token that ends the answer.

    `reads_prompt`: the chain's penalties count the prompt's tokens too. `biases`: what is added to
    the logits of which tokens. `grammar`: what the answer must follow, in GBNF.
    """

    steps: tuple[Step, ...]
    ban_end: bool = False
    reads_prompt: bool = False
    biases: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None

    @property
    def likeliest(self) -> bool:
        """Whether all it takes is to find the highest logit, biases included."""
        return self.grammar is None and self.steps == (Step("greedy"),)

    def numbered(self, index: int) -> SamplerPlan:
        """Return the plan for one of several answers: each has a seed of its own."""
        *others, last = self.steps
        if index == 0 or last.name != "dist":
            return self
        seed = (int(last.arguments[0]) + index) % 2**32
        return replace(self, steps=(*others, Step("dist", (seed,))))


def plan(
    request: Sampling,
    vocabulary: int,
    defaults: Mapping[str, float] = DEFAULTS,
    grammar: str | None = None,
) -> SamplerPlan:
    """Return the chain for a request over a vocabulary of so many tokens.

    Without a seed, a random one is drawn; with one, the same request gives the same text. Raises
    `InvalidParameters` for a bias on a token that is none.
    """
    values = {name: _given(request, name, defaults) for name in DEFAULTS}
    penalties = _penalties(values, vocabulary)
    seed = secrets.randbits(32) if request.seed is None else request.seed
    greedy = values["temperature"] < GREEDY_BELOW or values["top_k"] == 1
    choice = (Step("greedy"),) if greedy else _random(values, vocabulary, seed)
    return SamplerPlan(
        steps=penalties + choice,
        ban_end=bool(request.ignore_eos),
        reads_prompt=bool(penalties),
        biases=_biases(request.logit_bias or {}, vocabulary),
        grammar=grammar,
    )


def model_defaults(metadata: Mapping[str, str]) -> dict[str, float]:
    """Return the defaults for a model whose metadata says these texts; odd values are left out."""
    values = dict(DEFAULTS)
    for key, name in METADATA_KEYS.items():
        try:
            value = float(metadata.get(key, "nan"))
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            values[name] = value
    return values


def _given(request: Sampling, name: str, defaults: Mapping[str, float]) -> float:
    value = getattr(request, name)
    return float(defaults[name] if value is None else value)


def _biases(given: Mapping[str, float], vocabulary: int) -> tuple[tuple[int, float], ...]:
    biases = []
    for key, value in given.items():
        known = key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < vocabulary
        if not known:
            raise InvalidParameters(
                f"'logit_bias' names the token {key[:20]!r}; the model's tokens are numbers from 0 "
                f"to {vocabulary - 1}.",
                details={"field": "logit_bias"},
            )
        biases.append((int(key), float(value) if value > NEVER else -math.inf))
    return tuple(biases)


def _penalties(values: Mapping[str, float], vocabulary: int) -> tuple[Step, ...]:
    repeat = max(values["repeat_penalty"], SMALLEST_PENALTY)
    frequency, presence = values["frequency_penalty"], values["presence_penalty"]
    if repeat == 1 and not frequency and not presence:
        return ()
    return (Step("penalties", (vocabulary, PENALTY_WINDOW, repeat, frequency, presence)),)


def _random(values: Mapping[str, float], vocabulary: int, seed: int) -> tuple[Step, ...]:
    top_k = min(int(values["top_k"]), vocabulary)
    steps = [Step("top_k", (top_k,))] if 0 < top_k < vocabulary else []
    steps += [
        Step(step, (values[name], 1))
        for step, name in (("typical", "typical_p"), ("top_p", "top_p"))
        if values[name] < 1
    ]
    if values["min_p"] > 0:
        steps.append(Step("min_p", (values["min_p"], 1)))
    return (*steps, Step("temp", (values["temperature"],)), Step("dist", (seed,)))
