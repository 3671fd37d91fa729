"""The tables, and the steps that brought them from one version to the next.

The version is SQLite's `user_version`: the number of steps that were done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiplayground.errors import FileOperationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        backend TEXT NOT NULL,
        model TEXT NOT NULL,
        preset TEXT,
        system_prompt TEXT NOT NULL,
        settings TEXT NOT NULL,
        head TEXT
    )
    """,
    "CREATE INDEX conversations_newest ON conversations (updated DESC, id DESC)",
    # A parent is no cascade: SQLite follows 1,000 of them at most, and a conversation may be
    # longer. It goes with its conversation; the check is at the end of the transaction.
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        status TEXT NOT NULL,
        writer TEXT,
        reasoning TEXT,
        tool_calls TEXT,
        finish_reason TEXT,
        model TEXT,
        backend TEXT,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        error TEXT
    )
    """,
    "CREATE INDEX messages_conversation ON messages (conversation, seq)",
    "CREATE INDEX messages_parent ON messages (parent)",
    "CREATE INDEX messages_streaming ON messages (writer) WHERE status = 'streaming'",
    "CREATE TABLE images (hash TEXT PRIMARY KEY, data BLOB NOT NULL)",
    """
    CREATE TABLE message_images (
        message TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        image TEXT NOT NULL REFERENCES images (hash),
        PRIMARY KEY (message, place)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX message_images_image ON message_images (image)",
)

STEPS: Sequence[Sequence[str]] = (_FIRST,)
"""One entry a version: the statements that lead to it from the one before. Never changed after a
release; what changes gets an entry of its own."""


@contextmanager
def transaction(connection: sqlite3.Connection, *, reading: bool = False) -> Iterator[None]:
    """Do all of the block or nothing of it; other writers wait from its beginning on.

    One that is `reading` makes nobody wait, and sees the file as it was at its beginning.
    """
    connection.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite has ended it itself when the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to the newest version; each step is done whole or not at all.

    Raises `FileOperationError` for a file of a newer program.
    """
    done = _version(connection)
    if done > len(STEPS):
        raise FileOperationError(
            f"The conversations were written by a newer AI Playground (version {done} of the file, "
            f"this one knows {len(STEPS)}). Update this program; nothing was changed.",
            details={"reason": "newer", "version": done},
        )
    while (done := _version(connection)) < len(STEPS):
        with transaction(connection):
            # Another process may have done it while this one waited.
            if _version(connection) == done:
                for statement in STEPS[done]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {done + 1:d}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
