"""The conversation at the terminal, as it is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from aiplayground.conversations import Archive, Conversation, Draft, MessageStatus, Progress
from aiplayground.conversations._answering import KEEP_EVERY
from aiplayground.conversations._archive import milliseconds, new_id
from aiplayground.conversations._prompting import request_messages, title_of, well_formed
from aiplayground.errors import AIPlaygroundError

from ._output import warn

if TYPE_CHECKING:
    from aiplayground.paths import Paths

    from ._answer import Answer
    from ._terms import Terms


class Resumed(NamedTuple):
    """A conversation to go on with: its messages without the instructions, how it ended."""

    conversation: Conversation
    messages: list[dict[str, Any]]
    ended: MessageStatus


class Record:
    """Keeps what is said. Where the file cannot be used it says so once, and the talk goes on.

    An answer is kept as it grows: of one that the program does not live to end, all but the last
    second is there, and the next program marks it as interrupted.
    """

    def __init__(self, paths: Paths) -> None:
        self._archive = Archive(paths.conversations)
        self._kept: Conversation | None = None
        self._last: str | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._off = False

    async def resume(self, word: str) -> Resumed:
        """Go on with a conversation; `word` is the beginning of its id, or `last`.

        Raises `InvalidParameters`.
        """
        report = await self._archive.open()
        if report is not None:
            warn(report)
        found = await self._archive.match(word)
        self._kept, messages = await self._archive.branch(found.id)
        self._last = messages[-1].id if messages else None
        said = request_messages("", messages)
        # As in the conversation itself: what got no answer is not remembered.
        said = said[:-1] if said and said[-1]["role"] == "user" else said
        ended = messages[-1].status if messages else MessageStatus.COMPLETE
        return Resumed(self._kept, said, ended)

    def begin(self, text: str, terms: Terms, answer: Answer) -> None:
        """Keep a question, and the answer as it grows; the answer does not wait for the disk."""
        if not self._off:
            self._answer = answer
            work = self._begin(well_formed(text), terms)
            beginning = self._beginning = asyncio.create_task(work, name="keep a question")
            keeping = self._keep(answer, beginning)
            self._keeping = asyncio.create_task(keeping, name="keep an answer")

    async def _begin(self, text: str, terms: Terms) -> None:
        fields, kept = terms.kept(), self._kept
        if kept is None:
            kept = await self._archive.create(title=title_of(text), **fields)
        elif any(getattr(kept, name) != value for name, value in fields.items()):
            kept = await self._archive.change(kept.id, **fields)
        self._kept = kept
        asked, answer, time = new_id(), new_id(), milliseconds()
        question = Draft(id=asked, role="user", content=text, parent=self._last, timestamp=time)
        reply = Draft(
            id=answer,
            role="assistant",
            parent=asked,
            timestamp=time,
            status=MessageStatus.STREAMING,
            model=fields["model"] or None,
        )
        await self._archive.add(kept.id, [question, reply])
        self._last = answer

    async def _keep(self, answer: Answer, beginning: asyncio.Task[None]) -> None:
        """Keep what was said until now, again and again; `end` tells what the disk refused."""
        await asyncio.wait({beginning})
        if beginning.exception() is not None:
            return
        kept = 0
        while True:
            await asyncio.sleep(KEEP_EVERY)
            said = len(answer.text) + len(answer.reasoning)
            if said > kept:
                kept = said
                self._archive.write(str(self._last), _progress(answer, MessageStatus.STREAMING))

    async def end(
        self,
        answer: Answer,
        status: MessageStatus = MessageStatus.COMPLETE,
        error: AIPlaygroundError | None = None,
    ) -> None:
        """Keep what was answered, complete or not."""
        self._answer = None
        try:
            if await self._begun():
                status = status if error is None else MessageStatus.FAILED
                await self._archive.finish(str(self._last), _progress(answer, status, error))
        except AIPlaygroundError as failure:
            self._off = True
            warn(f"This conversation is not kept. {failure.message}")

    async def _begun(self) -> bool:
        """Wait until the question is kept; returns False if that is not even tried."""
        keeping, self._keeping = self._keeping, None
        beginning, self._beginning = self._beginning, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
        if beginning is not None:
            await beginning
        return beginning is not None

    def begin_anew(self) -> None:
        """Keep what follows as another conversation."""
        self._kept = self._last = None

    async def close(self) -> None:
        """Close the file; an answer that was given up is kept as far as it came."""
        if self._answer is not None:
            await self.end(self._answer, MessageStatus.INTERRUPTED)
        await self._archive.close()


def _progress(
    answer: Answer, status: MessageStatus, error: AIPlaygroundError | None = None
) -> Progress:
    usage = answer.usage
    return Progress(
        content=well_formed(answer.text),
        reasoning=well_formed(answer.reasoning),
        status=status,
        finish_reason=answer.finish_reason,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        error=error.to_dict() if error else None,
    )
