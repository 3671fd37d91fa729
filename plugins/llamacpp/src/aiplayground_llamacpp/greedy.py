"""The likeliest token, found in the logits where they lie.

A native chain first copies the whole vocabulary into a list of candidates: with 32,000 tokens that
takes 60 us a token, and the search 5. This module needs numpy, as `candidates` does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .candidates import logits_of, rows_of
from .context import Context
from .native import Model
from .sampling import SamplerPlan


class GreedyChain:
    """What `chain.Chain` is, for a plan that is `likeliest`: the same tokens, chosen faster."""

    def __init__(self, model: Model, plan: SamplerPlan) -> None:
        banned = model.end_tokens if plan.ban_end else ()
        biases = [*plan.biases, *((token, -np.inf) for token in banned)]
        self._biased = frozenset(token for token, _ in biases)
        self._raises = any(bias > 0 for _, bias in biases)
        self._biases = biases

    def choose(self, context: Context, place: int) -> int:
        """Return the token that follows; of equal ones the first."""
        if not self._raises:
            token = winners_of(context)[place]
            if token not in self._biased:  # a ban matters only to who would win
                return token
        return int(self._with_biases(logits_of(context, place)).argmax())

    def close(self) -> None:
        """There is nothing to free."""

    def _with_biases(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        changed = logits.copy()
        for token, bias in self._biases:
            changed[token] += np.float32(bias)
        return changed


def winners_of(context: Context) -> Mapping[int, int]:
    """Return the likeliest token at each place of the last batch: looked for once, in all."""
    if context.winners is None:
        rows = rows_of(context)
        context.winners = dict(zip(context.outputs, likeliest(rows), strict=True))
    return context.winners


def likeliest(rows: NDArray[np.float32]) -> list[int]:
    """Return the place of the highest value in each row."""
    found: list[int] = rows.argmax(axis=1).tolist()
    return found
