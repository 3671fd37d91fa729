"""All texts that a request brings from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest


def texts_of(request: ChatRequest) -> tuple[str, ...]:
    """Return the texts of messages and tools, the names of fields too."""
    messages = [message.model_dump(exclude_none=True) for message in request.messages]
    return tuple(_texts([messages, request.tools or []]))


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
