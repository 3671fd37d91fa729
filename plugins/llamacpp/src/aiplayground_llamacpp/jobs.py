"""One request between the event loop, which waits for it, and the thread that works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from aiplayground.errors import AIPlaygroundError
from aiplayground.types import ChatChunk

from .sampling import SamplerPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done: tokens to continue, how to choose, when to stop.

    `limit` is the most tokens that the answer may have, `None` for what the context holds.
    """

    prompt: Sequence[int]
    plan: SamplerPlan
    stops: Sequence[str] = ()
    limit: int | None = None


class Job:
    """A task in work. Made on the loop; `emit` and `fail` may be called from any thread."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[ChatChunk | AIPlaygroundError] = asyncio.Queue()

    def emit(self, chunk: ChatChunk) -> None:
        """Hand over a piece of the answer."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, chunk)

    def fail(self, error: AIPlaygroundError) -> None:
        """End the answer with an error; work on it stops at the next step."""
        self.cancelled = True
        self._loop.call_soon_threadsafe(self._events.put_nowait, error)

    async def chunks(self) -> AsyncGenerator[ChatChunk, None]:
        """Yield what is emitted, up to the chunk with a finish reason.

        Closing it, at whatever point, cancels the job.
        """
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, AIPlaygroundError):
                    raise event
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            self.cancelled = True
