"""One answer being given: asked for, gathered, kept at intervals, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiplayground._clock import now
from aiplayground.api import ServiceError
from aiplayground.errors import AIPlaygroundError, PluginError, ServiceNotAvailable

from ._archive import Archive
from ._prompting import add_tool_calls, well_formed
from ._types import ChatMessage, MessageStatus, Progress

if TYPE_CHECKING:
    from aiplayground.types import ChatChunk

TELL_EVERY = 0.05
"""Seconds between two tellings of an answer that grows: a fast model floods nobody."""

KEEP_EVERY = 1.0
"""Seconds of an answer that a crash can lose at most."""

KEPT = "What was said until then is kept; `regenerate` asks again."

Tell = Callable[[ChatMessage], None]


class Answering:
    """An answer of one conversation, from before it is asked for until it is kept.

    `tell` gets the message as it is, at most every `TELL_EVERY` seconds and at the end; `warn` gets
    what the disk refused meanwhile, from any thread.
    """

    def __init__(self, archive: Archive, tell: Tell, warn: Callable[[str], None]) -> None:
        self.ended = asyncio.Event()
        self._archive = archive
        self._tell = tell
        self._warn = warn
        self._message: ChatMessage | None = None
        self._gathering: asyncio.Task[Any] | None = None
        self._ending: MessageStatus | None = None
        self._refused = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: list[dict[str, Any]] = []
        self._fields: dict[str, Any] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._keeping: asyncio.TimerHandle | None = None
        self._told = float("-inf")

    @property
    def message(self) -> ChatMessage | None:
        """The answer as it is; None until it is begun."""
        return self._message and self._shown(self._so_far())

    def stop(self) -> None:
        """End it now, because the user wants it; what there is of it is kept."""
        self._end_as(MessageStatus.STOPPED)

    def interrupt(self) -> None:
        """End it now, because the program ends; what there is of it is kept."""
        self._end_as(MessageStatus.INTERRUPTED)

    def _end_as(self, status: MessageStatus) -> None:
        self._ending = self._ending or status
        if self._gathering is not None:
            self._gathering.cancel()

    async def run(
        self, messages: Sequence[ChatMessage], ask: Callable[[], AsyncGenerator[ChatChunk, None]]
    ) -> None:
        """Fill the last of the messages with the answer, and return when it is kept.

        Raises what the answer failed with, after keeping what there is, and `ServiceNotAvailable`
        when it was interrupted.
        """
        self._message = messages[-1]
        try:
            await self._gather(ask)
        except asyncio.CancelledError:
            await self._end(self._ending or MessageStatus.INTERRUPTED)
            if self._ending is None:
                raise
            if self._ending is MessageStatus.INTERRUPTED:
                raise ServiceNotAvailable(f"The program ended in mid-answer. {KEPT}") from None
        except AIPlaygroundError as error:
            await self._end(MessageStatus.FAILED, error)
            raise
        except BaseException as error:
            told = PluginError(f"The answer failed: {type(error).__name__}: {error}.")
            await self._end(MessageStatus.FAILED, told)
            raise
        else:
            await self._end(MessageStatus.COMPLETE)

    async def _gather(self, ask: Callable[[], AsyncGenerator[ChatChunk, None]]) -> None:
        if self._ending is not None:
            raise asyncio.CancelledError
        self._gathering = asyncio.current_task()
        try:
            async with aclosing(ask()) as chunks:
                async for chunk in chunks:
                    self._add(chunk)
        finally:
            self._gathering = None

    def _add(self, chunk: ChatChunk) -> None:
        self._text.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        add_tool_calls(self._tool_calls, chunk.tool_calls or ())
        if chunk.finish_reason is not None:
            self._fields["finish_reason"] = chunk.finish_reason
        if chunk.usage is not None:
            self._fields["prompt_tokens"] = chunk.usage.prompt_tokens
            self._fields["completion_tokens"] = chunk.usage.completion_tokens
        self._grown()

    def _grown(self) -> None:
        loop = asyncio.get_running_loop()
        if self._telling is None:
            wait = max(0.0, self._told + TELL_EVERY - now())
            self._telling = loop.call_later(wait, self._tell_now)
        if self._keeping is None:
            self._keeping = loop.call_later(KEEP_EVERY, self._keep_now)

    def _tell_now(self) -> None:
        self._telling = None
        self._told = now()
        self._tell(self._shown(self._so_far()))

    def _keep_now(self) -> None:
        self._keeping = None
        assert self._message is not None
        self._archive.write(self._message.id, self._so_far()).add_done_callback(self._was_kept)

    def _was_kept(self, written: Future[None]) -> None:
        # The answer goes on: it is shown, and the end tries again, and raises if that fails too.
        error = None if written.cancelled() else written.exception()
        if error is not None and not self._refused:
            self._refused = True
            self._warn(f"An answer cannot be kept: {error}")

    async def _end(self, status: MessageStatus, error: AIPlaygroundError | None = None) -> None:
        for timer in (self._telling, self._keeping):
            if timer is not None:
                timer.cancel()
        if error is not None:
            told = error.to_dict()
            told["message"] = f"{told['message']} {KEPT}"
            self._fields["error"] = told
        answer = self._so_far(status)
        assert self._message is not None
        try:
            await self._archive.finish(self._message.id, answer)
        finally:
            self.ended.set()
            self._tell(self._shown(answer))

    def _so_far(self, status: MessageStatus = MessageStatus.STREAMING) -> Progress:
        return Progress(
            content=well_formed("".join(self._text)),
            reasoning=well_formed("".join(self._reasoning)),
            tool_calls=[{**each, "function": {**each["function"]}} for each in self._tool_calls],
            status=status,
            **self._fields,
        )

    def _shown(self, so_far: Progress) -> ChatMessage:
        assert self._message is not None
        return self._message.model_copy(
            update={
                "content": so_far.content,
                "reasoning": so_far.reasoning or None,
                "tool_calls": tuple(so_far.tool_calls) or None,
                "status": so_far.status,
                "finish_reason": so_far.finish_reason,
                "prompt_tokens": so_far.prompt_tokens,
                "completion_tokens": so_far.completion_tokens,
                "error": so_far.error and ServiceError.model_validate(so_far.error),
            }
        )
