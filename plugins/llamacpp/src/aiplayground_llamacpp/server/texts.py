"""The texts that a request brings from outside, and control tokens in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest

INVISIBLE = "\u200b"
"""A space of no width: what it divides is no control token any more, and looks the same."""


def texts_of(request: ChatRequest) -> tuple[str, ...]:
    """Return the texts of messages and tools, the names of fields too."""
    messages = [message.model_dump(exclude_none=True) for message in request.messages]
    return tuple(_texts([messages, request.tools or []]))


def broken_up(text: str, found: Sequence[str]) -> str:
    """Return a text in which none of these stands any more, where all control tokens count."""
    if not found:
        return text
    pattern = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
    return re.sub(pattern, lambda match: INVISIBLE.join(match.group()), text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
