"""One answer in the making: its tokens, its samplers, its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiplayground.types import ChatChunk, FinishReason, Usage

from .chain import Chain
from .context import Context
from .jobs import Job
from .native import Model
from .sampling import SamplerPlan
from .scheduler import Work
from .text import AnswerText


class Branch(Work):
    """One of the answers that a job asks for. `size` is the most tokens that a slot may hold."""

    __slots__ = (
        "_chain", "_entries", "_limit", "_logprobs", "_model", "_prompt", "_text",
        "cached", "count", "images", "index", "job",
    )  # fmt: skip

    def __init__(self, model: Model, job: Job, index: int, order: int, size: int) -> None:
        task = job.task
        super().__init__(list(task.prompt), order)
        self.job, self.index, self.images = job, index, task.images
        self.count = 0
        self.cached: int | None = None
        self._model = model
        self._text = AnswerText(task.stops)
        self._logprobs = task.logprobs
        self._entries: list[dict[str, Any]] = []
        self._prompt = task.size
        room = size - self._prompt + 1  # the last token need not be kept
        self._limit = room if task.limit is None else min(task.limit, room)
        self._chain: Chain | None = None

    def open(self) -> None:
        """Make the samplers, if there are none yet. Raises `InvalidParameters` for a grammar."""
        if self._chain is None:
            task = self.job.task
            self._chain = make_chain(self._model, task.plan.numbered(self.index), task.text)

    def close(self) -> None:
        """Free the samplers."""
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    def advance(self, context: Context, place: int) -> ChatChunk | None:
        """Choose the next token; return what can be sent. With a finish reason it is the last."""
        token = self._chain.choose(context, place) if self._chain else None
        if token is None:  # no token may follow: a grammar's dead end
            return self.end("stop")
        self.count += 1
        if self._model.is_end(token):
            return self.end("stop")
        if self._logprobs is not None:
            self._entries.append(self._entry(context, place, token))
        piece = self._text.feed(self._model.piece(token))
        if self._text.stopped:
            self._entries = covering(self._entries, len(piece))
            return self.end("stop", piece)
        if self.count >= self._limit:
            return self.end("length", piece)
        self.tokens.append(token)
        if piece and not self._entries:
            return ChatChunk(index=self.index, text=piece)
        return self._chunk(piece) if piece else None

    def end(self, reason: FinishReason, text: str = "") -> ChatChunk:
        """Return the last chunk of the answer."""
        # With several answers the prompt counts once.
        first = self.index == 0
        usage = Usage(
            prompt_tokens=self._prompt if first else 0,
            completion_tokens=self.count,
            cached_tokens=self.cached if first else 0,
        )
        return self._chunk(text + self._text.flush(), finish_reason=reason, usage=usage)

    def _chunk(self, text: str, **fields: Any) -> ChatChunk:
        if self._entries:
            fields["logprobs"], self._entries = self._entries, []
        return ChatChunk(index=self.index, text=text, **fields)

    def _entry(self, context: Context, place: int, token: int) -> dict[str, Any]:
        from .candidates import as_array, log_probabilities

        logits = as_array(context.logits(place), self._model.vocabulary)
        value, top = log_probabilities(logits, token, self._logprobs or 0)
        others = [self._told(each, chance) for each, chance in top]
        return {**self._told(token, value), "top_logprobs": others}

    def _told(self, token: int, value: float) -> dict[str, Any]:
        piece = self._model.piece(token)
        text = piece.decode("utf-8", "replace")
        return {"token": text, "logprob": max(value, -9999.0), "bytes": list(piece)}


def covering(entries: Sequence[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """Return the first entries, whose tokens together make up a text of this length."""
    kept: list[dict[str, Any]] = []
    for entry in entries:
        if length <= 0:
            break
        kept.append(entry)
        length -= len(entry["token"])
    return kept


def make_chain(model: Model, plan: SamplerPlan, prompt: Sequence[int]) -> Chain:
    """Return the samplers for a plan; what a grammar needs is imported only for one."""
    if plan.grammar is None:
        return Chain(model, plan, prompt)
    from .constrained import GrammarChain

    return GrammarChain(model, plan, prompt)
