"""One request between the event loop, which waits for it, and the thread that works on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiplayground.errors import AIPlaygroundError
from aiplayground.types import ChatChunk

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
    """A task in work. Made on the loop; only `cancelled` is for other threads too."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.cancelled = False
        self._events: deque[ChatChunk | AIPlaygroundError] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: ChatChunk | AIPlaygroundError) -> None:
        """Hand over a piece of the answer, or the error that ends it."""
        if isinstance(event, AIPlaygroundError):
            self.cancelled = True  # work on it stops at the next step
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> ChatChunk:
        """Wait for the next piece; raises the error that ends the answer. For one reader."""
        while not self._events:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        if isinstance(event, AIPlaygroundError):
            raise event
        return event


def deliver(events: Iterable[tuple[Job, ChatChunk | AIPlaygroundError]]) -> None:
    """Hand over what a step made, all at once: waking the loop costs more than the rest."""
    for job, event in events:
        job.put(event)
