"""From the body of `POST /v1/responses` to one of the chat API: pure functions.

Source: the OpenAI API reference, "Responses". Nothing is stored: what refers to a stored response
is refused.
"""

from __future__ import annotations

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

_SAME = ("model", "temperature", "top_p", "stream", "parallel_tool_calls", "user")
_WITHOUT_EFFECT = frozenset(
    {"include", "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store"}
    | {"prompt_cache_retention", "stream_options"}
)
_KNOWN = _WITHOUT_EFFECT | {
    *_SAME,
    *("input", "instructions", "max_output_tokens", "reasoning", "text", "tool_choice", "tools"),
    *("background", "conversation", "previous_response_id", "prompt", "truncation"),
    *("max_tool_calls", "top_logprobs"),
}
_STORED = ("conversation", "previous_response_id", "prompt")
_ROLES = ("system", "developer", "user", "assistant")


def to_chat(fields: Fields) -> dict[str, Any]:
    """Return the chat request that a responses request means; raises `InvalidParameters`."""
    fields = given(fields)
    check_known(fields, _KNOWN)
    _check_refused(fields)
    chat = {name: fields[name] for name in _SAME if name in fields}
    chat["messages"] = [*_instructions(fields), *_messages(fields.get("input"))]
    if "max_output_tokens" in fields:
        chat["max_tokens"] = fields["max_output_tokens"]
    if tools := fields.get("tools"):
        chat["tools"] = [_tool(each) for each in as_objects(tools, "tools")]
    if "tool_choice" in fields:
        chat["tool_choice"] = _choice(fields["tool_choice"])
    if (form := _format(fields.get("text"))) is not None:
        chat["response_format"] = form
    return chat


def _check_refused(fields: Fields) -> None:
    for name in _STORED:
        if name in fields:
            raise refuse(name, "refers to what is stored, and nothing is stored here")
    if fields.get("background"):
        raise refuse("background", "is not supported: stay connected")
    if fields.get("truncation", "disabled") != "disabled":
        raise refuse("truncation", "is not supported: shorten the input")
    if fields.get("top_logprobs") or "max_tool_calls" in fields:
        name = "top_logprobs" if fields.get("top_logprobs") else "max_tool_calls"
        raise refuse(name, "is not supported here; /v1/chat/completions has log probabilities")
    if (reasoning := fields.get("reasoning")) and given(reasoning).get("effort", "none") != "none":
        raise refuse("reasoning", "has an effort: models here think as much as they were made to")


def _instructions(fields: Fields) -> list[dict[str, Any]]:
    if "instructions" not in fields:
        return []
    content = as_text(fields["instructions"], "instructions")
    return [{"role": "system", "content": content}]


def _messages(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages: list[dict[str, Any]] = []
    for item in as_objects(value, "input"):
        message = _message(given(item))
        last = messages[-1] if messages else {}
        if "tool_calls" in message and last.get("role") == "assistant":
            # Items of one turn: the chat API has them in one message.
            last["tool_calls"] = [*last.get("tool_calls", []), *message["tool_calls"]]
        elif message:
            messages.append(message)
    return messages


def _message(item: Fields) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message":
        if item.get("role") not in _ROLES:
            raise refuse("input", f"has a message whose role is none of {', '.join(_ROLES)}")
        return {"role": item["role"], "content": _content(item.get("content"))}
    if kind == "function_call":
        call = tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        content = _content(item.get("output"))
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
    if kind == "reasoning":
        return {}  # how a former answer was thought out is of no use to the next
    raise refuse("input", f"has an item of type '{kind}', which is not supported")


def _content(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return plain_or_parts([_part(each) for each in as_objects(value, "input")])


def _part(part: Fields) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": as_text(part.get("text"), "input")}
    if kind == "refusal":
        return {"type": "text", "text": as_text(part.get("refusal"), "input")}
    if kind == "input_image":
        return image_part(part.get("image_url"), "input")
    raise refuse("input", f"has a part of type '{kind}', which is not supported")


def _tool(tool: Fields) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise refuse("tools", f"has one of type '{tool.get('type')}': only functions can be called")
    return function_tool(
        tool.get("name"),
        tool.get("description"),
        tool.get("parameters"),
        strict=tool.get("strict"),
    )


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    if not isinstance(text, dict):
        raise refuse("text", "must be an object")
    form = text.get("format")
    if form is None:
        return None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        named = {name: form[name] for name in ("name", "schema", "strict") if name in form}
        return {"type": "json_schema", "json_schema": named}
    return form if isinstance(form, dict) else None
