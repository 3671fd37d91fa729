"""The conversation at the terminal, as it is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiplayground.conversations import (
    ROUTER,
    Archive,
    Conversation,
    Draft,
    MessageStatus,
    Progress,
)
from aiplayground.conversations._archive import milliseconds, new_id
from aiplayground.conversations._prompting import request_messages, title_of, well_formed
from aiplayground.errors import AIPlaygroundError

from ._output import warn

if TYPE_CHECKING:
    from aiplayground.paths import Paths

    from ._answer import Answer


class Record:
    """Keeps what is said. Where the file cannot be used it says so once, and the talk goes on."""

    def __init__(self, paths: Paths) -> None:
        self._archive = Archive(paths.conversations)
        self._kept: Conversation | None = None
        self._last: str | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._off = False

    async def resume(self, word: str) -> tuple[Conversation, list[dict[str, Any]]]:
        """Go on with a conversation; returns it and its messages, without the instructions.

        `word` is the beginning of its id, or `last`. Raises `InvalidParameters`.
        """
        report = await self._archive.open()
        if report is not None:
            warn(report)
        found = await self._archive.match(word)
        self._kept, messages = await self._archive.branch(found.id)
        self._last = messages[-1].id if messages else None
        said = request_messages("", messages)
        # As in the conversation itself: what got no answer is not remembered.
        return self._kept, said[:-1] if said and said[-1]["role"] == "user" else said

    def begin(self, text: str, model: str, system: str | None) -> None:
        """Keep a question, and that it is being answered; the answer does not wait for the disk."""
        if not self._off:
            # The running kernel's name for its default is no model's name elsewhere.
            named = "" if model == ROUTER else model
            work = self._begin(well_formed(text), named, system or "")
            self._beginning = asyncio.create_task(work, name="keep a question")

    async def _begin(self, text: str, model: str, system: str) -> None:
        kept = self._kept
        if kept is None:
            kept = await self._archive.create(
                title=title_of(text), model=model, system_prompt=system
            )
        elif (kept.model, kept.system_prompt) != (model, system):
            kept = await self._archive.change(kept.id, model=model, system_prompt=system)
        self._kept = kept
        asked, answer, time = new_id(), new_id(), milliseconds()
        question = Draft(id=asked, role="user", content=text, parent=self._last, timestamp=time)
        reply = Draft(
            id=answer,
            role="assistant",
            parent=asked,
            timestamp=time,
            status=MessageStatus.STREAMING,
            model=model or None,
        )
        await self._archive.add(kept.id, [question, reply])
        self._last = answer

    async def end(
        self, answer: Answer, *, stopped: bool = False, error: AIPlaygroundError | None = None
    ) -> None:
        """Keep what was answered, complete or not."""
        status = MessageStatus.STOPPED if stopped else MessageStatus.COMPLETE
        usage = answer.usage
        kept = Progress(
            content=well_formed(answer.text),
            reasoning=well_formed(answer.reasoning),
            status=status if error is None else MessageStatus.FAILED,
            finish_reason=answer.finish_reason,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            error=error.to_dict() if error else None,
        )
        try:
            if await self._begun() is not None:
                await self._archive.finish(str(self._last), kept)
        except AIPlaygroundError as failure:
            self._off = True
            warn(f"This conversation is not kept. {failure.message}")

    async def _begun(self) -> asyncio.Task[None] | None:
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            await beginning
        return beginning

    def begin_anew(self) -> None:
        """Keep what follows as another conversation."""
        self._kept = self._last = None

    async def close(self) -> None:
        """Close the file."""
        if self._beginning is not None:  # the answer was given up
            await asyncio.wait({self._beginning})
        await self._archive.close()
