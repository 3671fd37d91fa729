"""Pictures of messages: each kept once, by its SHA-256."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Iterable, Sequence

from aiplayground._files import decode_image, kind_of
from aiplayground.errors import InvalidParameters

MAX_IMAGES = 32
"""Pictures of one message at most."""


def decode_images(images: Sequence[str], limit: int) -> tuple[bytes, ...]:
    """Return the pictures given in base64 or as data URLs, of at most `limit` bytes each.

    Raises `InvalidParameters` that names the first that is none.
    """
    if len(images) > MAX_IMAGES:
        raise InvalidParameters(
            f"A message takes {MAX_IMAGES} images at most, not {len(images)}.",
            details={"field": "images"},
        )
    return tuple(_decoded(place, text, limit) for place, text in enumerate(images))


def _decoded(place: int, text: str, limit: int) -> bytes:
    try:
        return decode_image(text, limit)
    except InvalidParameters as error:
        name = f"images[{place}]"
        message = error.message.replace("'imageData'", f"'{name}'")
        raise InvalidParameters(message, details={**error.details, "field": name}) from None


def data_url(data: bytes) -> str:
    """Return a picture as a data URL (RFC 2397)."""
    return f"data:image/{kind_of(data[:32]) or 'png'};base64,{base64.b64encode(data).decode()}"


def attach(connection: sqlite3.Connection, message: str, images: Iterable[bytes]) -> None:
    """Keep the pictures of a message, in order."""
    for place, data in enumerate(images):
        digest = hashlib.sha256(data).hexdigest()
        connection.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (digest, data))
        connection.execute("INSERT INTO message_images VALUES (?, ?, ?)", (message, place, digest))


def attach_same(connection: sqlite3.Connection, message: str, other: str) -> None:
    """Give a message the pictures of another."""
    connection.execute(
        "INSERT INTO message_images SELECT ?, place, image FROM message_images WHERE message = ?",
        (message, other),
    )


def images_of(connection: sqlite3.Connection, message: str) -> tuple[str, ...]:
    """Return the pictures of a message as data URLs."""
    rows = connection.execute(
        "SELECT data FROM message_images JOIN images ON hash = image WHERE message = ? "
        "ORDER BY place",
        (message,),
    )
    return tuple(data_url(data) for (data,) in rows)


def hashes_in(connection: sqlite3.Connection, conversation: str) -> list[str]:
    """Return the hashes of the pictures of a conversation."""
    rows = connection.execute(
        "SELECT DISTINCT image FROM message_images JOIN messages ON messages.id = message "
        "WHERE conversation = ?",
        (conversation,),
    )
    return [digest for (digest,) in rows]


def drop_unused(connection: sqlite3.Connection, hashes: Iterable[str]) -> None:
    """Remove those of the pictures that no message has any more."""
    connection.executemany(
        "DELETE FROM images WHERE hash = ? "
        "AND NOT EXISTS (SELECT 1 FROM message_images WHERE image = hash)",
        [(digest,) for digest in hashes],
    )
