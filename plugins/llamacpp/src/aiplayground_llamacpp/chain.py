"""Native sampler chains, built from a `SamplerPlan`."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from aiplayground.errors import AIPlaygroundError

from .native import Model
from .sampling import PENALTY_WINDOW, SamplerPlan, Step


class Chain:
    """One request's samplers. A context manager: they are freed once, whatever happens."""

    def __init__(self, model: Model, plan: SamplerPlan, prompt: Iterable[int]) -> None:
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
            for token in list(prompt)[-PENALTY_WINDOW:]:
                self._lib.llama_sampler_accept(self.pointer, token)

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the samplers; a second time would end the process, so it does nothing."""
        if self.pointer:
            self._lib.llama_sampler_free(self.pointer)
            self.pointer = None

    def _fill(self, model: Model, plan: SamplerPlan) -> None:
        if plan.ban_end and model.end_tokens:
            self._add(self._ban(model), "logit_bias")
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

    def _ban(self, model: Model) -> Any:
        tokens = model.end_tokens
        biases = (self._lib.llama_logit_bias * len(tokens))()
        for bias, token in zip(biases, tokens, strict=True):
            bias.token, bias.bias = token, float("-inf")
        return self._lib.llama_sampler_init_logit_bias(model.vocabulary, len(tokens), biases)

    def _add(self, sampler: Any, name: str) -> None:
        if not sampler:
            raise AIPlaygroundError(f"llama.cpp could not make the sampler '{name}'.")
        self._lib.llama_sampler_chain_add(self.pointer, sampler)
