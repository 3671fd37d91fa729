"""Answers that must follow a grammar, without paying for it at each token.

Asking a grammar about a whole vocabulary takes milliseconds, about one token microseconds. So the
samplers choose without it, and the grammar is asked about their choice alone; only if it refuses
are the others looked at, and of them only those that begin with a byte which it accepts. The
chances of the tokens stay what they would be otherwise. Source of the first half:
`common_sampler_sample` in llama.cpp's `common/sampling.cpp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiplayground.errors import InvalidParameters

from .bindings import holding_the_lock
from .candidates import NOTHING, Candidates, logits_of
from .chain import Chain
from .context import Context
from .native import Model
from .sampling import SamplerPlan

ROOT = b"root"


class GrammarChain(Chain):
    """Samplers behind a grammar. Raises `InvalidParameters` if it is no valid one."""

    def __init__(self, model: Model, plan: SamplerPlan, prompt: Sequence[int]) -> None:
        self._grammar: Any = None
        super().__init__(model, plan, prompt)
        self._model = model
        self._groups = model.group()
        self._accept = holding_the_lock(model.lib, model.lib.llama_sampler_accept)
        self._all = Candidates(model)
        # Penalties would count a choice that is then refused; and something must be left to choose.
        self._direct = not plan.reads_prompt and len(plan.biases) < model.vocabulary // 2
        try:
            self._grammar = make_grammar(model, plan.grammar or "")
        except BaseException:
            self.close()
            raise

    def choose(self, context: Context, place: int) -> int | None:
        """Return a token that the grammar allows; None if there is none."""
        logits = logits_of(context, place)
        # In native code it takes a fraction of the time.
        token = context.sample(self.pointer, place) if self._direct else self._pick(logits, None)
        if token is None or not self._allows(token):
            token = self._pick_allowed(logits)
        if token is None:
            return None
        self._lib.llama_sampler_accept(self.pointer, token)
        if not self._model.is_end(token):
            # Only of what it allows: it would end the process otherwise.
            self._accept(self._grammar, token)
        return token

    def close(self) -> None:
        """Free the samplers and the grammar."""
        super().close()
        if self._grammar:
            self._lib.llama_sampler_free(self._grammar)
            self._grammar = None

    def _pick(self, logits: NDArray[np.float32], chosen: NDArray[Any] | None) -> int | None:
        self._all.fill(logits, chosen)
        self._all.apply(self.pointer)
        return self._all.selected()

    def _pick_allowed(self, logits: NDArray[np.float32]) -> int | None:
        possible = np.flatnonzero(self._open_bytes()[self._groups.first])
        allowed = possible[self._filter(possible)]
        if not len(allowed):
            return None
        token = self._pick(logits, allowed)
        return token if token is not None and self._allows(token) else None

    def _open_bytes(self) -> NDArray[np.bool_]:
        """Say which first bytes may follow; true where no token can tell."""
        alone = self._groups.alone
        tellers = alone[alone >= 0]
        may = np.ones(NOTHING + 1, bool)
        may[np.flatnonzero(alone >= 0)] = self._filter(tellers)
        return may

    def _allows(self, token: int) -> bool:
        return bool(self._filter(np.array([token], np.int32))[0])

    def _filter(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Say of each token whether the grammar allows it next."""
        if not len(tokens):
            return np.zeros(0, bool)
        self._all.fill(None, tokens)
        self._all.apply(self._grammar)
        allowed: NDArray[np.bool_] = np.isfinite(self._all.logits)
        return allowed


def make_grammar(model: Model, source: str) -> Any:
    """Return the native grammar; raises `InvalidParameters` if llama.cpp cannot read it."""
    grammar = model.lib.llama_sampler_init_grammar(model.vocab, source.encode(), ROOT)
    if not grammar:
        raise InvalidParameters(
            "The grammar is not valid. It must be GBNF with a rule 'root' and no left recursion.",
            details={"field": "grammar"},
        )
    return grammar
