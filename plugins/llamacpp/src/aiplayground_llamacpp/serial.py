"""Work on jobs one after the other.

This is the seam for continuous batching: whatever has `submit`, `abort` and `active` can take
this runner's place, and nothing else in the engine knows how many jobs advance at a time.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Protocol

from aiplayground.errors import AIPlaygroundError, FailureClass, ServiceFailed
from aiplayground.types import ChatChunk, FinishReason, Usage

from .chain import Chain
from .jobs import Job
from .native import Context, Model
from .text import AnswerText
from .thread import EngineThread

PREFILL_CHUNK = 256
"""Tokens of a prompt between two looks at whether its client is still there."""

CONTEXT_FULL = 1  # llama_decode: no room for the batch, nothing has changed


class Runner(Protocol):
    """Works on jobs for one model."""

    @property
    def active(self) -> int:
        """How many jobs are waiting or in work."""

    def submit(self, job: Job) -> None:
        """Take on a job. Called on the loop."""

    def abort(self, error: AIPlaygroundError) -> None:
        """End all jobs with this error, at their next step. Called on the loop."""


class SerialRunner:
    """One context, one sequence, one job at a time, in the order of their arrival.

    What the last job left in the context is kept: a conversation's next turn computes only what
    is new.
    """

    def __init__(self, thread: EngineThread, model: Model, context: Context) -> None:
        self._thread = thread
        self._model = model
        self._context = context
        self._jobs: set[Job] = set()

    @property
    def active(self) -> int:
        """How many jobs are waiting or in work."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Take on a job."""
        self._jobs.add(job)
        self._thread.submit(lambda: self._run(job))

    def abort(self, error: AIPlaygroundError) -> None:
        """End all jobs with this error."""
        for job in tuple(self._jobs):
            job.fail(error)

    def _run(self, job: Job) -> None:
        try:
            if not job.cancelled:
                self._work(job)
        except AIPlaygroundError as error:
            self._forget()
            job.fail(error)
        except Exception as error:  # noqa: BLE001  # the job's own end, not the thread's
            traceback.print_exception(error, file=sys.stderr)
            self._forget()
            job.fail(AIPlaygroundError("The engine failed on this request; its log says more."))
        finally:
            self._jobs.discard(job)

    def _work(self, job: Job) -> None:
        if not self._prefill(job):
            return
        task = job.task
        with Chain(self._model, task.plan, task.prompt) as chain:
            self._generate(job, chain)

    def _prefill(self, job: Job) -> bool:
        """Read the prompt; return False if the client has gone meanwhile."""
        prompt, context = job.task.prompt, self._context
        # The last token is always computed: what follows it is what is asked for.
        start = context.keep(min(shared(prompt, context.tokens), len(prompt) - 1))
        chunk = min(PREFILL_CHUNK, context.batch_size)
        for place in range(start, len(prompt), chunk):
            if job.cancelled:
                return False
            status = context.decode(prompt[place : place + chunk])
            if status != 0:
                raise _failed(status)
        return True

    def _generate(self, job: Job, chain: Chain) -> None:
        model, context, task = self._model, self._context, job.task
        text = AnswerText(task.stops)
        room = context.size - len(context.tokens) + 1
        limit = room if task.limit is None else min(task.limit, room)
        count = 0
        reason: FinishReason = "length"
        while not job.cancelled:
            token = context.sample(chain.pointer)
            count += 1
            if model.is_end(token):
                reason = "stop"
                break
            piece = text.feed(model.piece(token))
            if piece:
                job.emit(ChatChunk(text=piece))
            if text.stopped:
                reason = "stop"
                break
            if count >= limit or not self._advance(token):
                break
        usage = Usage(prompt_tokens=len(task.prompt), completion_tokens=count)
        # Out before its end is told: whoever has read the end may look at `active`.
        self._jobs.discard(job)
        job.emit(ChatChunk(text=text.flush(), finish_reason=reason, usage=usage))

    def _advance(self, token: int) -> bool:
        """Add the chosen token; return False if the context is full."""
        status = self._context.decode((token,))
        if status not in (0, CONTEXT_FULL):
            raise _failed(status)
        return status == 0

    def _forget(self) -> None:
        # After an error nobody knows how much of the batch the context holds.
        self._context.keep(0)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their start."""
    longest = min(len(one), len(other))
    return next((n for n in range(longest) if one[n] != other[n]), longest)


def _failed(status: int) -> ServiceFailed:
    return ServiceFailed(
        f"llama.cpp failed to compute (status {status}). Try again; if it stays so, set a smaller "
        "context_size or batch_size, or use another model.",
        failure=FailureClass.CRASH,
        details={"status": status},
    )
