"""From the body of `POST /v1/messages` to one of the chat API: pure functions.

Source: the Anthropic API reference, "Messages".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .translation import (
    Fields,
    as_objects,
    as_text,
    check_known,
    function_tool,
    given,
    image_part,
    plain_or_parts,
    refuse,
    tool_call,
)

_SAME = ("model", "max_tokens", "temperature", "top_k", "top_p", "stream")
_KNOWN = frozenset(
    {*_SAME, "messages", "metadata", "service_tier", "stop_sequences", "system", "thinking"}
    | {"tool_choice", "tools", "inference_geo", "cache_control", "output_config"}
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def to_chat(fields: Fields, parameters: frozenset[str]) -> dict[str, Any]:
    """Return the chat request that a messages request means.

    `parameters` are the backend's. Raises `InvalidParameters`.
    """
    fields = given(fields)
    check_known(fields, _KNOWN)
    chat = {name: fields[name] for name in _SAME if name in fields}
    messages = as_objects(fields.get("messages"), "messages")
    told = [message for each in messages for message in _messages(each)]
    chat["messages"] = [*_system(fields.get("system")), *told]
    if stops := fields.get("stop_sequences"):
        chat["stop"] = stops
    if tools := fields.get("tools"):
        chat["tools"] = [_tool(each) for each in as_objects(tools, "tools")]
    _choose(chat, fields.get("tool_choice"))
    _think(chat, fields.get("thinking"), parameters)
    _form(chat, fields.get("output_config"))
    return chat


def _system(system: Any) -> list[dict[str, Any]]:
    if system is None:
        return []
    if not isinstance(system, str):
        texts = [as_text(each.get("text"), "system") for each in as_objects(system, "system")]
        system = "\n".join(texts)
    return [{"role": "system", "content": system}] if system else []


def _messages(message: Fields) -> Iterator[dict[str, Any]]:
    """Yield the messages that one is: the results of tools are messages of their own there."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise refuse("messages", "has a role that is neither 'user' nor 'assistant'")
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    blocks = as_objects(content, "messages")
    if role == "assistant":
        yield _assistant(blocks)
        return
    for block in blocks:
        if block.get("type") == "tool_result":
            yield _result(block)
    parts = [_part(block) for block in blocks if block.get("type") != "tool_result"]
    if parts:
        yield {"role": role, "content": plain_or_parts(parts)}


def _assistant(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = ("tool_use", "thinking", "redacted_thinking")
    parts = [_part(block) for block in blocks if block.get("type") not in kinds]
    message: dict[str, Any] = {"role": "assistant"}
    message["content"] = plain_or_parts(parts) if parts else None
    calls = [
        tool_call(block.get("id"), block.get("name"), json.dumps(block.get("input") or {}))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    return message | ({"tool_calls": calls} if calls else {})


def _result(block: Fields) -> dict[str, Any]:
    content = block.get("content") or ""
    if not isinstance(content, str):
        content = plain_or_parts([_part(each) for each in as_objects(content, "messages")])
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _part(block: Fields) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": as_text(block.get("text"), "messages")}
    if kind == "image" and isinstance(source := block.get("source"), dict):
        if source.get("type") == "url":
            return image_part(source.get("url"), "messages")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
            return image_part(url, "messages")
    raise refuse("messages", f"has a block of type '{kind}', which is not supported")


def _tool(tool: Fields) -> dict[str, Any]:
    if tool.get("type", "custom") != "custom":
        raise refuse("tools", f"has one of type '{tool['type']}': only your own can be called")
    return function_tool(tool.get("name"), tool.get("description"), tool.get("input_schema"))


def _choose(chat: dict[str, Any], choice: Any) -> None:
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    else:
        raise refuse("tool_choice", "must have a type: auto, any, tool or none")
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _think(chat: dict[str, Any], thinking: Any, parameters: frozenset[str]) -> None:
    """Turn a template's thinking on or off, where the backend can."""
    if thinking is None:
        return
    wanted = isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")
    if "chat_template_kwargs" in parameters:
        chat["chat_template_kwargs"] = {"enable_thinking": wanted}
    elif wanted:
        raise refuse("thinking", "cannot be turned on with this backend")


def _form(chat: dict[str, Any], config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, dict) or config.get("effort") is not None:
        raise refuse("output_config", "may have a format, and no effort")
    form = config.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {"name": "answer", "schema": form.get("schema"), "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form is not None:
        raise refuse("output_config", "has a format that is no json_schema")
