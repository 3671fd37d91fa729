"""Conversations and messages as rows of the tables. Everything here blocks, in the one thread."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from aiplayground.errors import InvalidParameters

from ._images import attach, attach_same, drop_unused, hashes_in, images_of
from ._types import ChatMessage, Conversation, ConversationPage, Draft, MessageStatus, Progress

_CONVERSATION = (
    "id, title, created, updated, backend, model, preset, system_prompt, settings"  # in the order
)
_MESSAGE = (
    "m.id, m.role, m.content, m.timestamp, m.status, m.parent, m.reasoning, m.tool_calls, "
    "m.finish_reason, m.model, m.backend, m.prompt_tokens, m.completion_tokens, m.error"
)
CHANGEABLE = frozenset({"title", "backend", "model", "preset", "system_prompt", "settings"})
"""Fields of a conversation that can be set."""


# Conversations ------------------------------------------------------------------------------


def add_conversation(connection: sqlite3.Connection, new: Conversation) -> None:
    """Keep a new conversation."""
    row = (*[getattr(new, name.strip()) for name in _CONVERSATION.split(",")[:-1]],)
    connection.execute(
        f"INSERT INTO conversations ({_CONVERSATION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, json.dumps(new.settings)),
    )


def get_conversation(connection: sqlite3.Connection, id_: str) -> Conversation:
    """Return a conversation; raises `InvalidParameters` if there is none."""
    row = connection.execute(
        f"SELECT {_CONVERSATION} FROM conversations WHERE id = ?", (id_,)
    ).fetchone()
    if row is None:
        raise InvalidParameters(
            f"There is no conversation '{id_}'; it may have been deleted. The list shows those "
            f"that are there.",
            details={"conversation": id_, "reason": "no-conversation"},
        )
    return _conversation(row)


def match_conversation(connection: sqlite3.Connection, word: str) -> Conversation:
    """Return the conversation whose id begins with a word; `last` means the newest.

    Raises `InvalidParameters` if there is none, or more than one.
    """
    if word == "last":
        newest = list_conversations(connection, 1, None).items
        if not newest:
            raise InvalidParameters("There is no conversation yet. Begin one: aipg chat")
        return newest[0]
    rows = connection.execute(
        f"SELECT {_CONVERSATION} FROM conversations WHERE substr(id, 1, ?) = ? LIMIT 2",
        (len(word), word),
    ).fetchall()
    if len(rows) > 1 and word not in [row[0] for row in rows]:
        raise InvalidParameters(
            f"Several conversations begin with '{word}': write more of the id.",
            details={"conversation": word, "reason": "ambiguous"},
        )
    return _conversation(rows[0]) if len(rows) == 1 else get_conversation(connection, word)


def list_conversations(
    connection: sqlite3.Connection, limit: int, after: str | None
) -> ConversationPage:
    """Return a page of conversations, newest first, by keyset: its cost is that of its length."""
    rows = connection.execute(
        f"SELECT {_CONVERSATION} FROM conversations WHERE (updated, id) < (?, ?) "
        "ORDER BY updated DESC, id DESC LIMIT ?",
        (*_cursor(after), limit + 1),
    ).fetchall()
    items = tuple(_conversation(row) for row in rows[:limit])
    last = items[-1] if len(rows) > limit else None
    return ConversationPage(items=items, next=f"{last.updated}-{last.id}" if last else None)


def change_conversation(
    connection: sqlite3.Connection, id_: str, fields: Mapping[str, Any]
) -> Conversation:
    """Set fields of a conversation, and return it."""
    for name, value in fields.items():
        if name not in CHANGEABLE:
            raise ValueError(f"{name} is no field that can be set")
        connection.execute(
            f"UPDATE conversations SET {name} = ? WHERE id = ?",
            (json.dumps(value) if name == "settings" else value, id_),
        )
    return get_conversation(connection, id_)


def delete_conversation(connection: sqlite3.Connection, id_: str) -> None:
    """Remove a conversation, its messages, and the pictures that no other has."""
    get_conversation(connection, id_)
    hashes = hashes_in(connection, id_)
    connection.execute("DELETE FROM messages WHERE conversation = ?", (id_,))
    connection.execute("DELETE FROM conversations WHERE id = ?", (id_,))
    drop_unused(connection, hashes)


def _conversation(row: Sequence[Any]) -> Conversation:
    names = [name.strip() for name in _CONVERSATION.split(",")]
    return Conversation.model_validate(
        {**dict(zip(names, row, strict=True)), "settings": json.loads(row[-1])}
    )


def _cursor(after: str | None) -> tuple[int, str]:
    if after is None:
        return 2**62, ""
    updated, dash, id_ = after.partition("-")
    if not dash or not updated.isascii() or not updated.isdecimal() or len(updated) > 18:
        raise InvalidParameters(
            "'after' must be the 'next' of a page before.", details={"field": "after"}
        )
    return int(updated), id_


# Messages -----------------------------------------------------------------------------------


def add_messages(
    connection: sqlite3.Connection, conversation: str, drafts: Sequence[Draft], writer: str
) -> None:
    """Add messages to a conversation; the last of them is what it now ends with."""
    for draft in drafts:
        connection.execute(
            "INSERT INTO messages (id, conversation, parent, role, content, timestamp, status, "
            "writer, model, backend) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(draft.id, conversation, draft.parent, draft.role, draft.content),
                *(draft.timestamp, draft.status, writer, draft.model, draft.backend),
            ),
        )
        attach(connection, draft.id, draft.images)
        if draft.same_images_as is not None:
            attach_same(connection, draft.id, draft.same_images_as)
    end_with(connection, conversation, drafts[-1].id)
    touch(connection, conversation, drafts[-1].timestamp)


def touch(connection: sqlite3.Connection, conversation: str, time: int) -> None:
    """Note when a conversation changed last."""
    connection.execute(
        "UPDATE conversations SET updated = max(updated, ?) WHERE id = ?", (time, conversation)
    )


def end_with(connection: sqlite3.Connection, conversation: str, message: str) -> None:
    """Make the branch that ends with a message the one that is shown."""
    connection.execute("UPDATE conversations SET head = ? WHERE id = ?", (message, conversation))


def write_progress(connection: sqlite3.Connection, message: str, so_far: Progress) -> None:
    """Keep what an answer has become; one that has ended, or was deleted, stays as it is."""
    connection.execute(
        "UPDATE messages SET content = ?, reasoning = ?, tool_calls = ?, status = ?, "
        "finish_reason = ?, prompt_tokens = ?, completion_tokens = ?, error = ? "
        "WHERE id = ? AND status = 'streaming'",
        (
            *(so_far.content, so_far.reasoning or None),
            json.dumps(so_far.tool_calls) if so_far.tool_calls else None,
            *(so_far.status, so_far.finish_reason),
            *(so_far.prompt_tokens, so_far.completion_tokens),
            json.dumps(so_far.error) if so_far.error else None,
            message,
        ),
    )


def interrupt_streaming(connection: sqlite3.Connection, living: Sequence[str]) -> int:
    """Mark the answers that no living writer is at any more; return how many they were."""
    marks = ", ".join("?" * len(living))
    return connection.execute(
        f"UPDATE messages SET status = ? WHERE status = 'streaming' AND writer NOT IN ({marks})",
        (MessageStatus.INTERRUPTED, *living),
    ).rowcount


def interrupt_own(connection: sqlite3.Connection, conversation: str, writer: str) -> None:
    """Mark what a writer left of an answer whose end it could not keep."""
    connection.execute(
        "UPDATE messages SET status = ? "
        "WHERE status = 'streaming' AND conversation = ? AND writer = ?",
        (MessageStatus.INTERRUPTED, conversation, writer),
    )


def streaming_writer(connection: sqlite3.Connection, conversation: str) -> str | None:
    """Return who is writing an answer of a conversation, if anybody is."""
    row = connection.execute(
        "SELECT writer FROM messages WHERE conversation = ? AND status = 'streaming'",
        (conversation,),
    ).fetchone()
    return row and str(row[0])


def path_of(connection: sqlite3.Connection, conversation: str) -> tuple[ChatMessage, ...]:
    """Return the messages of the branch that is shown, first to last."""
    rows = connection.execute(
        f"""
        WITH RECURSIVE path (id, depth) AS (
            SELECT head, 0 FROM conversations WHERE id = ?
            UNION ALL
            SELECT m.parent, depth + 1 FROM path JOIN messages m ON m.id = path.id
        )
        SELECT {_MESSAGE} FROM path JOIN messages m ON m.id = path.id ORDER BY depth DESC
        """,
        (conversation,),
    ).fetchall()
    beside = _children(connection, conversation)
    return tuple(_message(connection, row, beside) for row in rows)


def newest_below(connection: sqlite3.Connection, conversation: str, message: str) -> str:
    """Return the last message of the newest branch that goes through a message."""
    below = _children(connection, conversation)
    if not any(message in children for children in below.values()):
        raise no_message(message)
    while children := below.get(message):
        message = children[-1]
    return message


def no_message(id_: str) -> InvalidParameters:
    """Return the error for a message that is not in the conversation."""
    return InvalidParameters(
        f"There is no message '{id_}' in this conversation.",
        details={"message": id_, "reason": "no-message"},
    )


def _children(connection: sqlite3.Connection, conversation: str) -> dict[str | None, list[str]]:
    """Return the messages that follow each message, oldest first."""
    found: dict[str | None, list[str]] = defaultdict(list)
    for id_, parent in connection.execute(
        "SELECT id, parent FROM messages WHERE conversation = ? ORDER BY seq", (conversation,)
    ):
        found[parent].append(id_)
    return found


def _message(
    connection: sqlite3.Connection, row: Sequence[Any], beside: Mapping[str | None, list[str]]
) -> ChatMessage:
    names = [name.strip().removeprefix("m.") for name in _MESSAGE.split(",")]
    fields = dict(zip(names, row, strict=True))
    for name in ("tool_calls", "error"):
        fields[name] = json.loads(fields[name]) if fields[name] else None
    siblings = beside.get(fields["parent"], [])
    fields["siblings"] = tuple(siblings) if len(siblings) > 1 else ()
    return ChatMessage.model_validate(
        {**fields, "images": images_of(connection, fields["id"]) or None}
    )
