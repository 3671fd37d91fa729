"""One answer in the making, as the engine's thread has it: its tokens and its samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiplayground.types import FinishReason

from .answer import Chosen
from .chain import Chain, Chooser
from .context import Context
from .jobs import Job
from .native import Model
from .sampling import SamplerPlan
from .scheduler import Work

SETTLED = 3
"""Tokens after which an answer has been going on for a while."""


class Branch(Work):
    """One of the answers that a job asks for. `size` is the most tokens that a slot may hold."""

    __slots__ = (
        "_chain", "_count", "_index", "_limit", "_logprobs", "_model",
        "answer", "images", "job",
    )  # fmt: skip

    def __init__(self, model: Model, job: Job, index: int, order: int, size: int) -> None:
        task = job.task
        super().__init__(list(task.prompt), order)
        self.job, self.answer, self.images = job, job.answers[index], task.images
        self._index = index
        self._count = 0
        self._model = model
        self._logprobs = task.logprobs
        room = size - task.size + 1  # the last token need not be kept
        self._limit = room if task.limit is None else min(task.limit, room)
        self._chain: Chooser | None = None

    @property
    def settled(self) -> bool:
        """Whether the answer has been going on for a while."""
        return self._count >= SETTLED

    def open(self) -> None:
        """Make the samplers, if there are none yet. Raises `InvalidParameters` for a grammar."""
        if self._chain is None:
            task = self.job.task
            self._chain = make_chain(self._model, task.plan.numbered(self._index), task.text)

    def close(self) -> None:
        """Free the samplers."""
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    def advance(self, context: Context, place: int) -> Chosen:
        """Choose the next token. With a reason it is the last."""
        token = self._chain.choose(context, place) if self._chain else None
        if token is None:  # no token may follow: a grammar's dead end
            return self.end("stop")
        self._count += 1
        piece = self._model.spoken(token)
        if piece is None:
            return Chosen(self.answer, b"", "stop")
        entry = None if self._logprobs is None else self._entry(context, place, token)
        if self._count >= self._limit:
            return Chosen(self.answer, piece, "length", entry)
        self.tokens.append(token)
        return Chosen(self.answer, piece, None, entry)

    def end(self, reason: FinishReason) -> Chosen:
        """Return an end of the answer without a further token."""
        return Chosen(self.answer, None, reason)

    def _entry(self, context: Context, place: int, token: int) -> dict[str, Any]:
        from .candidates import log_probabilities, logits_of

        logits = logits_of(context, place)
        value, top = log_probabilities(logits, token, self._logprobs or 0)
        others = [self._told(each, chance) for each, chance in top]
        return {**self._told(token, value), "top_logprobs": others}

    def _told(self, token: int, value: float) -> dict[str, Any]:
        piece = self._model.piece(token)
        text = piece.decode("utf-8", "replace")
        return {"token": text, "logprob": max(value, -9999.0), "bytes": list(piece)}


def make_chain(model: Model, plan: SamplerPlan, prompt: Sequence[int]) -> Chooser:
    """Return the samplers for a plan; what a grammar needs is imported only for one."""
    if plan.grammar is None:
        if plan.likeliest and model.has_arrays:
            from .greedy import GreedyChain

            return GreedyChain(model, plan)
        return Chain(model, plan, prompt)
    from .constrained import GrammarChain

    return GrammarChain(model, plan, prompt)
