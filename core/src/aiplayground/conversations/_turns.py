"""Turns of conversations: a question kept, an answer asked for, both told of as they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ._answering import Answering
from ._archive import Archive, Branch, busy, milliseconds, new_id
from ._database import PATIENCE
from ._model import parameters_of, request_of, resolve
from ._prompting import title_of
from ._rows import no_message
from ._types import ChatMessage, Draft, MessageStatus

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.presets import ChatParameters
    from aiplayground.types import ChatChunk, ModelInfo

PICTURES = "Images"
"""Title of a conversation that begins with images alone."""


class Turn(NamedTuple):
    """What a turn adds to a branch: messages, and after which one the answer comes."""

    drafts: Sequence[Draft]
    answer_to: str


Prepare = Callable[[tuple[ChatMessage, ...]], Turn]


class Turns:
    """The answers in progress of one kernel's conversations: one at a time in each.

    A turn is a task of its own: it goes on when its caller is gone. `tell` gets an answer as it
    grows and ends, with its conversation, and None of a turn that came to nothing; `show` gets a
    branch that became another.
    """

    def __init__(
        self,
        kernel: Kernel,
        archive: Archive,
        tell: Callable[[str, ChatMessage | None], None],
        show: Callable[[Branch], None],
    ) -> None:
        self._kernel = kernel
        self._archive = archive
        self._tell = tell
        self._show = show
        self._answers: dict[str, Answering] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_progress(self) -> tuple[str, ...]:
        """The conversations that are being answered."""
        return tuple(self._answers)

    def as_it_is(self, branch: Branch) -> tuple[ChatMessage, ...]:
        """Return the messages of a branch, the answer in progress as it is by now."""
        answer = self._answers.get(branch.conversation.id)
        if answer is None or answer.message is None:
            return branch.messages
        now = answer.message
        return tuple(now if each.id == now.id else each for each in branch.messages)

    def refuse_when_busy(self, conversation: str) -> None:
        """Raise `InvalidParameters` (reason `busy`) if a conversation is being answered."""
        if conversation in self._answers:
            raise busy(conversation)

    async def send(self, conversation: str, text: str, images: tuple[bytes, ...] = ()) -> None:
        """Add a question to a conversation, and have it answered."""

        def turn(messages: tuple[ChatMessage, ...]) -> Turn:
            asked = _question(text, messages[-1].id if messages else None, images=images)
            return Turn([asked], asked.id)

        await self._take(conversation, turn)

    async def regenerate(self, conversation: str, message: str | None = None) -> None:
        """Answer the last question again, or the one of a message of the branch that is shown."""

        def turn(messages: tuple[ChatMessage, ...]) -> Turn:
            old = _find(messages, message)
            if old.role == "user":
                return Turn([], old.id)
            if old.parent is None:
                raise no_message(old.id)
            return Turn([], old.parent)

        await self._take(conversation, turn)

    async def edit(self, conversation: str, message: str, text: str) -> None:
        """Put another text in the place of a message, in a branch of its own.

        A question is answered anew; an answer is just another.
        """
        old = _find((await self._archive.branch(conversation)).messages, message)
        if old.role == "assistant":
            self.refuse_when_busy(conversation)
            said = _answer(old.parent, old.model, old.backend, text)
            self._show(await self._archive.add(conversation, [said]))
            return

        def turn(messages: tuple[ChatMessage, ...]) -> Turn:
            asked = _question(text, old.parent, same_images_as=old.id)
            return Turn([asked], asked.id)

        await self._take(conversation, turn)

    async def stop(self, conversation: str) -> None:
        """End the answer in progress of a conversation, if there is one, and wait for its end."""
        answer = self._answers.get(conversation)
        if answer is not None:
            answer.stop()
            await answer.ended.wait()

    async def close(self) -> None:
        """End every answer; what there is of them is kept."""
        for answer in list(self._answers.values()):
            answer.interrupt()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        for task in list(self._tasks):
            task.cancel()

    # One turn -----------------------------------------------------------------------------

    async def _take(self, conversation: str, prepare: Prepare) -> None:
        self.refuse_when_busy(conversation)
        tell = partial(self._tell_of, conversation)
        answer = self._answers[conversation] = Answering(self._archive, tell, self._warn)
        task = asyncio.create_task(self._turn(conversation, answer, prepare), name="chat turn")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has it, or is gone; the message has it in any case

    async def _turn(self, conversation: str, answer: Answering, prepare: Prepare) -> None:
        try:
            before = await self._archive.branch(conversation)
            chosen = before.conversation
            given = await parameters_of(self._kernel, chosen.preset)
            model = await resolve(self._kernel, chosen.model, chosen.backend)
            turn = prepare(before.messages)
            empty = _answer(turn.answer_to, model.name, model.service, None)
            title = None if chosen.title or not turn.drafts else _title(turn.drafts[0])
            branch = await self._archive.add(conversation, [*turn.drafts, empty], title)
            asked = Branch(branch.conversation, branch.messages[:-1])
            self._show(branch)
            ask = partial(self._ask, model, asked, given)
            await answer.run(branch.messages, ask)
        finally:
            self._release(conversation, answer)

    def _ask(
        self, model: ModelInfo, branch: Branch, given: ChatParameters
    ) -> AsyncGenerator[ChatChunk, None]:
        return self._kernel.chat(request_of(model, branch, given))

    def _tell_of(self, conversation: str, message: ChatMessage) -> None:
        if message.status is not MessageStatus.STREAMING:
            self._answers.pop(conversation, None)  # so that its end and this are told at once
        self._tell(conversation, message)

    def _release(self, conversation: str, answer: Answering) -> None:
        answer.ended.set()
        if self._answers.get(conversation) is answer:
            del self._answers[conversation]
            self._tell(conversation, None)

    def _warn(self, message: str) -> None:
        self._kernel.log().logger.warning("%s", message)


def _find(messages: tuple[ChatMessage, ...], wanted: str | None) -> ChatMessage:
    if wanted is None and messages:
        return messages[-1]
    for each in messages:
        if each.id == wanted:
            return each
    raise no_message(wanted or "")


def _question(
    text: str,
    parent: str | None,
    images: tuple[bytes, ...] = (),
    same_images_as: str | None = None,
) -> Draft:
    return Draft(
        id=new_id(),
        role="user",
        content=text,
        parent=parent,
        timestamp=milliseconds(),
        images=images,
        same_images_as=same_images_as,
    )


def _answer(parent: str | None, model: str | None, backend: str | None, text: str | None) -> Draft:
    """Return an answer; without a text one that is still to come."""
    return Draft(
        id=new_id(),
        role="assistant",
        content=text or "",
        parent=parent,
        timestamp=milliseconds(),
        status=MessageStatus.STREAMING if text is None else MessageStatus.COMPLETE,
        model=model,
        backend=backend,
    )


def _title(first: Draft) -> str:
    return title_of(first.content) or PICTURES
