"""Conversations and messages as programs see them.

Source: the API reference, "Message Schema". Every field that it does not name is optional, so that
a client that does not know it loses nothing. Times are in milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from aiplayground.api import Answer, ServiceError

ROUTER = "ai-backend"
"""The backend's name that means "whichever has the model"."""


class MessageStatus(StrEnum):
    """How far a message is: only an answer is ever anything but complete."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    STOPPED = "stopped"
    """The user ended the answer."""
    FAILED = "failed"
    """The backend did; `error` says why."""
    INTERRUPTED = "interrupted"
    """The program ended in mid-answer; what was said until then is kept."""


class ChatMessage(Answer):
    """One message.

    `images` are data URLs. `siblings` are the messages that stand at the same place in other
    branches (of a regenerated answer, an edited question), this one included, oldest first; empty
    where there is only one.
    """

    id: str
    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] | None = None
    timestamp: int
    status: MessageStatus = MessageStatus.COMPLETE
    parent: str | None = None
    siblings: tuple[str, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    finish_reason: str | None = None
    model: str | None = None
    backend: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: ServiceError | None = None


class Conversation(Answer):
    """What is known of a conversation without its messages.

    `backend` is `ai-backend` where the model alone decides. An empty `model` stands for the
    default one. `settings` are the sampling fields of a request (`temperature`, `max_tokens`, …).
    """

    id: str
    title: str
    created: int
    updated: int
    backend: str = ROUTER
    model: str = ""
    preset: str | None = None
    system_prompt: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)


class ConversationPage(Answer):
    """A part of the list of conversations, newest first; `next` asks for the part after it."""

    items: tuple[Conversation, ...]
    next: str | None = None


class SearchHit(Answer):
    """A place where a searched text stands; `message_id` is empty if it is the title."""

    conversation_id: str
    title: str
    message_id: str | None = None
    snippet: str
    timestamp: int


class SearchPage(Answer):
    """A part of what a search finds, newest first; `next` asks for the part after it."""

    items: tuple[SearchHit, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is to be added after `parent`; `images` are files' contents."""

    id: str
    role: str
    content: str = ""
    parent: str | None = None
    timestamp: int
    images: tuple[bytes, ...] = ()
    same_images_as: str | None = None
    status: MessageStatus = MessageStatus.COMPLETE
    model: str | None = None
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What an answer has become so far, or in the end."""

    content: str
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    status: MessageStatus = MessageStatus.STREAMING
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: dict[str, Any] | None = None
