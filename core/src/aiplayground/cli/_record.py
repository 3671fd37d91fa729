"""The conversation at the terminal, as it is kept."""

from __future__ import annotations

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
from aiplayground.errors import AIPlaygroundError, FileOperationError

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
        self._answer: str | None = None
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

    async def begin(self, text: str, model: str, system: str | None) -> None:
        """Keep a question, and that it is being answered.

        Raises `InvalidParameters` where another program answers in the same conversation.
        """
        if self._off:
            return
        try:
            # The running kernel's name for its default is no model's name elsewhere.
            named = "" if model == ROUTER else model
            await self._begin(well_formed(text), named, system or "")
        except FileOperationError as error:
            self._turn_off(error)

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
        self._last = self._answer = answer

    async def end(
        self, answer: Answer, *, stopped: bool = False, error: AIPlaygroundError | None = None
    ) -> None:
        """Keep what was answered, complete or not."""
        message, self._answer = self._answer, None
        if self._off or message is None:
            return
        status = MessageStatus.STOPPED if stopped else MessageStatus.COMPLETE
        usage = answer.usage
        kept = Progress(
            content=well_formed(answer.text),
            reasoning=well_formed(answer.reasoning),
            status=status if error is None else MessageStatus.FAILED,
            finish_reason=answer.finish_reason,
            prompt_tokens=usage and usage.prompt_tokens,
            completion_tokens=usage and usage.completion_tokens,
            error=error and error.to_dict(),
        )
        try:
            await self._archive.finish(message, kept)
        except FileOperationError as failure:
            self._turn_off(failure)

    def begin_anew(self) -> None:
        """Keep what follows as another conversation."""
        self._kept = self._last = None

    async def close(self) -> None:
        """Close the file."""
        await self._archive.close()

    def _turn_off(self, error: AIPlaygroundError) -> None:
        self._off = True
        warn(f"This conversation is not kept. {error.message}")
