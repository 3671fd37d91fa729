"""Requests to sampler chains."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiplayground.errors import InvalidParameters
from aiplayground.types import Sampling
from aiplayground_llamacpp.sampling import (
    PENALTY_WINDOW,
    SMALLEST_PENALTY,
    SamplerPlan,
    Step,
    model_defaults,
    plan,
)

VOCABULARY = 1000


def planned(**fields: Any) -> SamplerPlan:
    return plan(Sampling(**fields), VOCABULARY)


def names(made: SamplerPlan) -> list[str]:
    return [step.name for step in made.steps]


def test_the_default_chain_is_that_of_llama_cpp() -> None:
    assert names(planned()) == ["top_k", "top_p", "min_p", "temp", "dist"]


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"top_k": 1}, {"temperature": 1e-30}])
def test_greedy(fields: dict[str, Any]) -> None:
    assert names(planned(**fields)) == ["greedy"]


def test_everything_in_order() -> None:
    made = planned(
        temperature=0.5, top_k=10, top_p=0.9, min_p=0.1, typical_p=0.8, repeat_penalty=1.1,
        frequency_penalty=0.2, presence_penalty=0.3, seed=42, ignore_eos=True,
    )  # fmt: skip
    assert made.steps == (
        Step("penalties", (VOCABULARY, PENALTY_WINDOW, 1.1, 0.2, 0.3)),
        Step("top_k", (10,)),
        Step("typical", (0.8, 1)),
        Step("top_p", (0.9, 1)),
        Step("min_p", (0.1, 1)),
        Step("temp", (0.5,)),
        Step("dist", (42,)),
    )
    assert made.ban_end
    assert made.reads_prompt


def test_what_has_no_effect_is_left_out() -> None:
    made = planned(top_k=0, top_p=1, min_p=0, typical_p=1, repeat_penalty=1, seed=1)
    assert names(made) == ["temp", "dist"]
    assert names(planned(top_k=2**62, top_p=1, min_p=0)) == ["temp", "dist"]


def test_without_a_seed_each_request_draws_its_own() -> None:
    seeds = {planned().steps[-1].arguments[0] for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_repeat_penalty_never_reaches_zero() -> None:
    assert planned(repeat_penalty=1e-300).steps[0].arguments[2] == SMALLEST_PENALTY


def test_penalties_hold_for_greedy_too() -> None:
    assert names(planned(temperature=0, presence_penalty=1)) == ["penalties", "greedy"]


def test_a_model_file_may_set_the_defaults() -> None:
    texts = {
        "general.sampling.temp": "0",
        "general.sampling.top_k": "20",
        "general.sampling.top_p": "much",
        "general.sampling.min_p": "-1",
        "general.sampling.penalty_repeat": "nan",
    }
    values = model_defaults(texts)
    assert (values["temperature"], values["top_k"], values["top_p"]) == (0, 20, 0.95)
    assert (values["min_p"], values["repeat_penalty"]) == (0.05, 1)
    assert names(plan(Sampling(), VOCABULARY, values)) == ["greedy"]
    assert names(plan(Sampling(temperature=1), VOCABULARY, values))[-1] == "dist"


def test_each_of_several_answers_has_a_seed_of_its_own() -> None:
    made = planned(seed=2**32 - 1)
    seeds = [made.numbered(index).steps[-1].arguments[0] for index in range(3)]
    assert seeds == [2**32 - 1, 0, 1]
    assert made.numbered(2).steps[:-1] == made.steps[:-1]
    greedy = planned(temperature=0)
    assert greedy.numbered(3) == greedy


def test_biases_name_tokens_of_the_vocabulary() -> None:
    made = planned(logit_bias={"5": 1.5, "999": -100})
    assert made.biases == ((5, 1.5), (999, -math.inf))
    with pytest.raises(InvalidParameters, match="1000"):
        planned(logit_bias={"1000": 1})
