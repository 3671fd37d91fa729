"""One request between the event loop, which waits for it, and the thread that works on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiplayground.errors import AIPlaygroundError
from aiplayground.types import ChatChunk

from .answer import Answer, Chosen
from .sampling import SamplerPlan

if TYPE_CHECKING:
    from .sight import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done: tokens to continue, how to choose, when to stop.

    `limit` is the most tokens that the answer may have, `None` for what the context holds.
    `answers` of them are wanted. `logprobs`: how many alternatives to tell with each token.
    In the places of `images` the prompt has numbers below zero.
    """

    prompt: Sequence[int]
    plan: SamplerPlan
    stops: Sequence[str] = ()
    limit: int | None = None
    answers: int = 1
    logprobs: int | None = None
    images: tuple[Image, ...] = ()

    @property
    def size(self) -> int:
        """Tokens of memory that the prompt takes."""
        return len(self.prompt) + sum(image.size - image.length for image in self.images)

    @property
    def text(self) -> Sequence[int]:
        """The prompt without its images."""
        return [token for token in self.prompt if token >= 0] if self.images else self.prompt


class Job:
    """A task in work, and the answers that it is to give. Made on the loop."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.answers = [Answer(task, index) for index in range(task.answers)]
        self._events: deque[Chosen | AIPlaygroundError] = deque()
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """Have work on it stop at the next step. From any thread."""
        for answer in self.answers:
            answer.over = True

    def put(self, event: Chosen | AIPlaygroundError) -> None:
        """Hand over a token of an answer, or the error that ends them all."""
        if isinstance(event, AIPlaygroundError):
            self.cancel()
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> ChatChunk:
        """Wait for the next chunk; raises the error that ends the answers. For one reader."""
        while True:
            while not self._events:
                self._reader = self._loop.create_future()
                await self._reader
            event = self._events.popleft()
            if isinstance(event, AIPlaygroundError):
                raise event
            chunk = event.answer.take(event)
            if chunk is not None:
                return chunk


def deliver(events: Iterable[tuple[Job, Chosen | AIPlaygroundError]]) -> None:
    """Hand over what a step made, all at once: waking the loop costs more than the rest."""
    for job, event in events:
        job.put(event)
