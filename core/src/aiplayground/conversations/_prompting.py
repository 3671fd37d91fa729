"""From a conversation to what a model is asked, and what the conversation is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ._types import ChatMessage

MAX_TITLE = 60
"""Characters of a title that is made of a message."""

MAX_TEXT = 1_000_000
"""Characters of a message at most."""


def request_messages(system_prompt: str, messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages of a request (OpenAI's shape): instructions, then the conversation.

    Answers without text (failed at once, or tool calls alone) are left out, and questions that
    then follow each other become one: many chat templates accept nothing but turns. Reasoning is
    not sent again, as the models that reason are trained.
    """
    sent: list[dict[str, Any]] = []
    if system_prompt.strip():
        sent.append({"role": "system", "content": system_prompt})
    for message in messages:
        if message.role == "assistant" and not message.content:
            continue
        content = _content(message)
        if sent and message.role == "user" and sent[-1]["role"] == "user":
            sent[-1]["content"] = _joined(sent[-1]["content"], content)
        else:
            sent.append({"role": message.role, "content": content})
    return sent


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
    return [*_parts(message.content), *pictures]


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _joined(
    first: str | list[dict[str, Any]], second: str | list[dict[str, Any]]
) -> str | list[dict[str, Any]]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def title_of(text: str) -> str:
    """Return a title for a conversation that begins with a text: its beginning, in whole words."""
    words = " ".join(text.split())
    if len(words) <= MAX_TITLE:
        return words
    cut = words[:MAX_TITLE]
    return f"{cut.rpartition(' ')[0] or cut}…"


def well_formed(text: str) -> str:
    """Return a text that UTF-8 can hold: halves of a character (JSON allows them) are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def add_tool_calls(calls: list[dict[str, Any]], deltas: Sequence[dict[str, Any]]) -> None:
    """Take in pieces of tool calls, as OpenAI's API streams them: by index, arguments in parts."""
    for delta in deltas:
        index = delta.get("index", len(calls))
        call = next((each for each in calls if each["index"] == index), None)
        if call is None:
            call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
            calls.append(call)
        function = delta.get("function") or {}
        call |= {name: delta[name] for name in ("id", "type") if delta.get(name)}
        for name in ("name", "arguments"):
            call["function"][name] += function.get(name) or ""
