"""Native sampler chains, built from a `SamplerPlan`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from aiplayground.errors import AIPlaygroundError

from .context import Context
from .native import Model
from .sampling import PENALTY_WINDOW, SamplerPlan, Step


class Chooser(Protocol):
    """Who chooses the tokens of one answer. `close` frees what it holds."""

    def choose(self, context: Context, place: int) -> int | None:
        """Return the token that follows; None if none may."""

    def close(self) -> None:
        """Free it; once more does nothing."""


class Chain:
    """One answer's samplers. `close` frees them."""

    def __init__(self, model: Model, plan: SamplerPlan, prompt: Sequence[int]) -> None:
        self._lib = model.lib
        parameters = self._lib.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self.pointer: Any = self._lib.llama_sampler_chain_init(parameters)
        try:
            self._fill(model, plan)
        except BaseException:
            self.close()
            raise
        if plan.reads_prompt:
            for token in prompt[-PENALTY_WINDOW:]:
                self._lib.llama_sampler_accept(self.pointer, token)

    def choose(self, context: Context, place: int) -> int | None:
        """Return the token that follows; None if none may."""
        return context.sample(self.pointer, place)

    def close(self) -> None:
        """Free the samplers; a second time would end the process, so it does nothing."""
        if self.pointer:
            self._lib.llama_sampler_free(self.pointer)
            self.pointer = None

    def _fill(self, model: Model, plan: SamplerPlan) -> None:
        banned = model.end_tokens if plan.ban_end else ()
        biases = [*plan.biases, *((token, float("-inf")) for token in banned)]
        if biases:
            self._add(self._bias(model.vocabulary, biases), "logit_bias")
        for step in plan.steps:
            self._add(self._make(step), step.name)

    def _make(self, step: Step) -> Any:
        function = getattr(self._lib, f"llama_sampler_init_{step.name}")
        # Plans hold plain numbers; the C signature says which of them are integers.
        return function(
            *[
                float(value) if kind.__name__ == "c_float" else int(value)
                for kind, value in zip(function.argtypes, step.arguments, strict=True)
            ]
        )

    def _bias(self, vocabulary: int, values: Iterable[tuple[int, float]]) -> Any:
        made = [self._lib.llama_logit_bias(token, bias) for token, bias in values]
        biases = (self._lib.llama_logit_bias * len(made))(*made)
        return self._lib.llama_sampler_init_logit_bias(vocabulary, len(made), biases)

    def _add(self, sampler: Any, name: str) -> None:
        if not sampler:
            raise AIPlaygroundError(f"llama.cpp could not make the sampler '{name}'.")
        self._lib.llama_sampler_chain_add(self.pointer, sampler)
