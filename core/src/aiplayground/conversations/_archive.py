"""Conversations, kept: what can be asked of the database and written to it, without blocking."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from aiplayground._clock import wall
from aiplayground.errors import FileOperationError, InvalidParameters

from . import _rows, _search
from ._database import Database
from ._opening import BUSY, Opened
from ._types import (
    ROUTER,
    ChatMessage,
    Conversation,
    ConversationPage,
    Draft,
    Progress,
    SearchPage,
)

PAGE = 50
"""Items of a page, where none is asked for."""

MAX_PAGE = 500


class Branch(NamedTuple):
    """A conversation as it is shown: its messages are those of one branch."""

    conversation: Conversation
    messages: tuple[ChatMessage, ...]


class Archive:
    """The conversations in a folder. Any number of them, in any number of programs.

    Nothing is opened before it is needed. Every method raises `FileOperationError` where the file
    cannot be used, and `InvalidParameters` for what is not there. Close it with `close`.
    """

    def __init__(self, folder: Path, busy: float = BUSY) -> None:
        self._database = Database(folder, busy)
        self._unkept: dict[str, Progress] = {}

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._database.path

    async def open(self) -> str | None:
        """Open the file now; returns a report if a damaged one had to be put aside."""
        return (await self._database.open()).report

    async def close(self) -> None:
        """Finish what is being written, and close the file."""
        if self._unkept:
            with suppress(FileOperationError):  # told when it happened; the last second is lost
                await self._database.run(self._keep_unkept)
        await self._database.close()

    # Conversations ------------------------------------------------------------------------

    async def page(self, limit: int = PAGE, after: str | None = None) -> ConversationPage:
        """List conversations, newest first; `after` is the `next` of the page before."""
        limit = _checked_limit(limit)
        return await self._database.read(
            lambda it: _rows.list_conversations(it.connection, limit, after)
        )

    async def find(self, conversation: str) -> Conversation:
        """Return a conversation without its messages."""
        return await self._database.read(
            lambda it: _rows.get_conversation(it.connection, conversation)
        )

    async def match(self, word: str) -> Conversation:
        """Return the conversation whose id begins with a word; `last` means the newest."""
        return await self._database.read(lambda it: _rows.match_conversation(it.connection, word))

    async def branch(self, conversation: str) -> Branch:
        """Return a conversation and the messages of the branch that it shows."""
        return await self._database.read(lambda it: _branch(it, conversation))

    async def create(
        self,
        *,
        title: str = "",
        backend: str = ROUTER,
        model: str = "",
        preset: str | None = None,
        system_prompt: str = "",
        settings: dict[str, Any] | None = None,
    ) -> Conversation:
        """Begin a conversation."""
        time = milliseconds()
        new = Conversation(
            id=new_id(),
            title=title,
            created=time,
            updated=time,
            backend=backend,
            model=model,
            preset=preset,
            system_prompt=system_prompt,
            settings=settings or {},
        )
        await self._database.run(lambda it: _rows.add_conversation(it.connection, new))
        return new

    async def change(self, conversation: str, **fields: Any) -> Conversation:
        """Set fields of a conversation: those of `create`."""
        return await self._database.run(
            lambda it: _rows.change_conversation(it.connection, conversation, fields)
        )

    async def delete(self, conversation: str) -> None:
        """Remove a conversation with everything in it; it cannot be got back."""
        await self._database.run(lambda it: _rows.delete_conversation(it.connection, conversation))

    async def search(self, text: str, limit: int = PAGE, after: str | None = None) -> SearchPage:
        """Find messages that have every word of a text, and conversations so called."""
        limit = _checked_limit(limit)
        return await self._database.read(
            lambda it: _search.search(it.connection, text, fts5=it.fts5, limit=limit, after=after)
        )

    # Messages -----------------------------------------------------------------------------

    async def add(
        self, conversation: str, drafts: Sequence[Draft], title: str | None = None
    ) -> Branch:
        """Add messages, each after its `parent`, and show the branch that they end.

        Raises `InvalidParameters` (reason `busy`) while an answer is written to the conversation,
        be it by another program.
        """

        def work(it: Opened) -> Branch:
            self._keep_unkept(it)
            return _add(it, conversation, drafts, title)

        return await self._database.run(work)

    async def show(self, conversation: str, message: str) -> Branch:
        """Show the newest branch that goes through a message."""
        return await self._database.run(lambda it: _show(it, conversation, message))

    def write(self, message: str, so_far: Progress) -> Future[None]:
        """Begin to keep what an answer has become; written in the order of the calls."""
        return self._database.submit(
            lambda it: _rows.write_progress(it.connection, message, so_far)
        )

    async def finish(self, message: str, answer: Progress) -> None:
        """Keep an answer that has ended; one that the disk refuses is kept with what follows."""
        try:
            await self._database.run(
                lambda it: _rows.write_progress(it.connection, message, answer)
            )
        except FileOperationError:
            self._unkept[message] = answer
            raise

    def _keep_unkept(self, it: Opened) -> None:
        for message, answer in list(self._unkept.items()):
            _rows.write_progress(it.connection, message, answer)
            del self._unkept[message]


def _branch(it: Opened, conversation: str) -> Branch:
    return Branch(
        _rows.get_conversation(it.connection, conversation),
        _rows.path_of(it.connection, conversation),
    )


def _add(it: Opened, conversation: str, drafts: Sequence[Draft], title: str | None) -> Branch:
    _rows.get_conversation(it.connection, conversation)
    if _rows.streaming_writer(it.connection, conversation) is not None:
        it.reap(conversation)  # its program may have died meanwhile
    if _rows.streaming_writer(it.connection, conversation) is not None:
        raise busy(conversation)
    _rows.add_messages(it.connection, conversation, drafts, it.writer)
    if title is not None:
        _rows.change_conversation(it.connection, conversation, {"title": title})
    return _branch(it, conversation)


def _show(it: Opened, conversation: str, message: str) -> Branch:
    last = _rows.newest_below(it.connection, conversation, message)
    _rows.end_with(it.connection, conversation, last)
    return _branch(it, conversation)


def busy(conversation: str) -> InvalidParameters:
    """Return the error for a conversation in which an answer is being given."""
    return InvalidParameters(
        "This conversation is being answered. Wait for the end of the answer, or stop it.",
        details={"conversation": conversation, "reason": "busy"},
    )


def new_id() -> str:
    """Return an id for a conversation or a message."""
    return uuid.uuid4().hex


def milliseconds() -> int:
    """Return the time, in milliseconds since the epoch."""
    return int(wall() * 1000)


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidParameters(
            f"'limit' must be from 1 to {MAX_PAGE}, not {limit}.", details={"field": "limit"}
        )
    return limit
