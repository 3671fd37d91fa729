"""Conversations with models, kept in one SQLite file: read, written, searched."""

from ._archive import MAX_PAGE, PAGE, Archive, Branch
from ._export import as_json, as_markdown
from ._turns import Turns
from ._types import (
    ROUTER,
    ChatMessage,
    Conversation,
    ConversationPage,
    Draft,
    MessageStatus,
    Progress,
    SearchHit,
    SearchPage,
)

__all__ = [
    "MAX_PAGE",
    "PAGE",
    "ROUTER",
    "Archive",
    "Branch",
    "ChatMessage",
    "Conversation",
    "ConversationPage",
    "Draft",
    "MessageStatus",
    "Progress",
    "SearchHit",
    "SearchPage",
    "Turns",
    "as_json",
    "as_markdown",
]
