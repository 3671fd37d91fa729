"""A conversation as a document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ._types import ChatMessage, MessageStatus

if TYPE_CHECKING:
    from ._archive import Branch


def as_json(branch: Branch) -> str:
    """Return a conversation with its messages as JSON, in the documented shapes."""
    plain = branch.conversation.model_dump(mode="json", by_alias=True, exclude_none=True)
    plain["messages"] = [
        each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in branch.messages
    ]
    return json.dumps(plain, indent=2, ensure_ascii=False)


def as_markdown(branch: Branch) -> str:
    """Return a conversation as Markdown; images as data URLs."""
    head = branch.conversation
    began = datetime.fromtimestamp(head.created / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    model = f", {head.model}" if head.model else ""
    parts = [f"# {head.title or 'Conversation'}", f"{began}{model}"]
    if head.system_prompt:
        parts += ["## Instructions", head.system_prompt]
    for message in branch.messages:
        parts += _message(message)
    return "\n\n".join(parts)


def _message(message: ChatMessage) -> list[str]:
    who = {"user": "You", "assistant": message.model or "Assistant", "system": "Instructions"}
    parts = [f"## {who[message.role]}"]
    parts += [f"![image]({url})" for url in message.images or ()]
    if message.content:
        parts.append(message.content)
    if message.status is not MessageStatus.COMPLETE:
        why = f": {message.error.message}" if message.error else ""
        parts.append(f"*({message.status.value}{why})*")
    return parts
