"""Search over titles and what was said: SQLite's FTS5, or a scan where that cannot be had.

The index is kept by triggers. An answer enters it when it has ended, not with each piece. A build
of SQLite without FTS5 drops the triggers, so that it can write; the next one with it makes the
index anew. Source: https://www.sqlite.org/fts5.html, "External Content Tables".
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from aiplayground.errors import InvalidParameters

from ._schema import transaction
from ._types import SearchHit, SearchPage

MAX_QUERY = 1000
"""Characters of a search at most."""

_AROUND = 60
"""Characters of a snippet on each side of what was found by a scan."""

_TRIGGERS: Final = {
    "messages_added": "AFTER INSERT ON messages WHEN new.status <> 'streaming' BEGIN "
    "INSERT INTO messages_fts (rowid, content) VALUES (new.seq, new.content); END",
    "messages_ended": "AFTER UPDATE OF status ON messages "
    "WHEN old.status = 'streaming' AND new.status <> 'streaming' BEGIN "
    "INSERT INTO messages_fts (rowid, content) VALUES (new.seq, new.content); END",
    "messages_removed": "AFTER DELETE ON messages WHEN old.status <> 'streaming' BEGIN "
    "INSERT INTO messages_fts (messages_fts, rowid, content) "
    "VALUES ('delete', old.seq, old.content); END",
}

# Scripts written without spaces are one long word to FTS5: kana, Han, Hangul, Thai, Lao, Khmer.
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
_WORD = re.compile(r"[^\W_]")

_FOUND = (
    "SELECT m.seq, m.conversation, c.title, m.id, {snippet}, m.timestamp "
    "FROM messages m JOIN conversations c ON c.id = m.conversation "
)


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Say whether this build of SQLite has FTS5."""
    found = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
    return found is not None


def prepare(connection: sqlite3.Connection, *, fts5: bool) -> None:
    """Have the index, and what keeps it, or nothing of it that would be in the way."""
    have = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' OR name = 'messages_fts'"
        )
    }
    triggers = have & set(_TRIGGERS)
    if triggers == (set(_TRIGGERS) if fts5 else set()):
        return
    with transaction(connection):
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        if fts5:
            _build(connection, fresh="messages_fts" not in have)


def _build(connection: sqlite3.Connection, *, fresh: bool) -> None:
    if fresh:
        connection.execute(
            "CREATE VIRTUAL TABLE messages_fts USING fts5 (content, content = 'messages', "
            "content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2')"
        )
    connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('delete-all')")
    connection.execute(
        "INSERT INTO messages_fts (rowid, content) "
        "SELECT seq, content FROM messages WHERE status <> 'streaming'"
    )
    for name, body in _TRIGGERS.items():
        connection.execute(f"CREATE TRIGGER {name} {body}")


def search(
    connection: sqlite3.Connection, text: str, *, fts5: bool, limit: int, after: str | None
) -> SearchPage:
    """Find messages with every word of `text` (the last may be unfinished), newest first.

    The first page begins with conversations whose title has the text. Raises `InvalidParameters`.
    """
    text = text.strip()
    if not text or len(text) > MAX_QUERY:
        raise InvalidParameters(
            f"'text' must have 1 to {MAX_QUERY} characters.", details={"field": "text"}
        )
    before = _place(after)
    by_index = fts5 and _WORD.search(text) and not _NO_SPACES.search(text)
    find = _by_index if by_index else _by_scan
    rows = find(connection, text, before, limit + 1)
    hits = [
        SearchHit(conversation_id=c, title=title, message_id=m, snippet=snippet, timestamp=time)
        for _, c, title, m, snippet, time in rows[:limit]
    ]
    titles = _titles(connection, text, limit) if after is None else []
    further = str(rows[limit - 1][0]) if len(rows) > limit else None
    return SearchPage(items=(*titles, *hits), next=further)


def _by_index(
    connection: sqlite3.Connection, text: str, before: int, limit: int
) -> list[tuple[int, str, str, str, str, int]]:
    # Quoted, so that nothing in it is an operator; the index splits each at its punctuation.
    words = [word.replace('"', " ") for word in text.split()]
    query = " ".join(f'"{word}"' for word in words) + "*"
    snippet = "snippet(messages_fts, 0, '', '', '…', 24)"
    return connection.execute(
        _FOUND.format(snippet=snippet) + "JOIN messages_fts f ON f.rowid = m.seq "
        "WHERE messages_fts MATCH ? AND f.rowid < ? ORDER BY f.rowid DESC LIMIT ?",
        (query, before, limit),
    ).fetchall()


def _by_scan(
    connection: sqlite3.Connection, text: str, before: int, limit: int
) -> list[tuple[int, str, str, str, str, int]]:
    rows = connection.execute(
        _FOUND.format(snippet="m.content") + "WHERE m.content LIKE ? ESCAPE '\\' "
        "AND m.status <> 'streaming' AND m.seq < ? ORDER BY m.seq DESC LIMIT ?",
        (_pattern(text), before, limit),
    )
    return [(*row[:4], _around(row[4], text), row[5]) for row in rows]


def _titles(connection: sqlite3.Connection, text: str, limit: int) -> list[SearchHit]:
    rows = connection.execute(
        "SELECT id, title, updated FROM conversations WHERE title LIKE ? ESCAPE '\\' "
        "ORDER BY updated DESC, id DESC LIMIT ?",
        (_pattern(text), limit),
    )
    return [
        SearchHit(conversation_id=id_, title=title, snippet=title, timestamp=updated)
        for id_, title, updated in rows
    ]


def _pattern(text: str) -> str:
    return "%" + re.sub(r"([%_\\])", r"\\\1", text) + "%"


def _around(content: str, text: str) -> str:
    """Return what stands around the first place of a text."""
    at = max(0, content.casefold().find(text.casefold()))
    start, end = max(0, at - _AROUND), at + len(text) + _AROUND
    return f"{'…' if start else ''}{content[start:end]}{'…' if end < len(content) else ''}"


def _place(after: str | None) -> int:
    if after is None:
        return 2**62
    if not after.isascii() or not after.isdecimal() or len(after) > 18:
        raise InvalidParameters(
            "'after' must be the 'next' of a page before.", details={"field": "after"}
        )
    return int(after)
