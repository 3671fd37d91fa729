"""Tools for models whose template has no place for them: told in messages, as plain text.

The wording is that of the families whose form of a call is asked for: NousResearch's Hermes, and
Google's "Function calling with Gemma".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .toolcalls import Dialect

_HERMES = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>\n{tools}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)
_GEMMA = (
    "You have access to functions. If you decide to invoke any of the function(s), you MUST put "
    'it in the format of\n{{"name": function name, "parameters": dictionary of argument name and '
    "its value}}\n\nYou SHOULD NOT include any other text in the response if you call a "
    "function.\n{tools}"
)


def told(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], dialect: Dialect
) -> list[dict[str, Any]]:
    """Return messages, with content as text, in which tools, calls and results are told.

    Results become messages of the user's; those in a row become one, since many such templates
    want user and assistant to take turns.
    """
    plain = [_plain(message, dialect) for message in messages]
    if tools:
        plain = _introduce(plain, _description(tools, dialect), dialect)
    joined: list[dict[str, Any]] = []
    for message in plain:
        if joined and message["role"] == joined[-1]["role"] == "user":
            joined[-1] = {**joined[-1], "content": _lines(joined[-1], message)}
        else:
            joined.append(message)
    return joined


def _description(tools: Sequence[Mapping[str, Any]], dialect: Dialect) -> str:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (_GEMMA if dialect.family == "gemma" else _HERMES).format(tools=lines)


def _introduce(messages: list[dict[str, Any]], text: str, dialect: Dialect) -> list[dict[str, Any]]:
    role = messages[0]["role"] if messages else ""
    if role == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    if role == "user" and dialect.family == "gemma":  # which may know no system
        first = {**messages[0], "content": f"{text}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _plain(message: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        text = f"<tool_response>\n{content}\n</tool_response>"
        return {"role": "user", "content": text}
    calls = [_call(call["function"], dialect) for call in message.get("tool_calls") or ()]
    fields = {key: value for key, value in message.items() if key != "tool_calls"}
    return (
        {**fields, "content": "\n".join([content, *calls] if content else calls)}
        if calls
        else fields
    )


def _call(function: Mapping[str, Any], dialect: Dialect) -> str:
    key = "parameters" if dialect.family == "gemma" else "arguments"
    text = json.dumps(
        {"name": function["name"], key: function.get("arguments", {})}, ensure_ascii=False
    )
    return text if dialect.family == "gemma" else f"<tool_call>\n{text}\n</tool_call>"


def _lines(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return f"{one['content']}\n{other['content']}"
