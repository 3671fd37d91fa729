"""How many tokens a stream cost, read from its end: pure functions.

A client that asked for it (`stream_options.include_usage`) gets an event with `usage`. For one that
did not, our own workers end their streams with a comment, `: {"usage": {…}}`: clients skip comments
(the HTML standard, section 9.2.6), so nothing need be asked of the worker that the client did not
ask, nothing taken out of the stream, and no piece looked at as it passes. llama.cpp's server tells
`timings` in its last event. What another server does not tell is not known.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

_MARKS = (b'"usage"', b'"timings"')


class Tokens(NamedTuple):
    """Tokens of a prompt, and of the answer to it."""

    prompt: int
    completion: int


def tokens_at_end(tail: bytes) -> Tokens | None:
    """Return what the last lines of an event stream tell; None if they tell nothing."""
    if not any(mark in tail for mark in _MARKS):
        return None
    for line in reversed(tail.splitlines()):
        if line.startswith((b"data:", b":")) and any(mark in line for mark in _MARKS):
            told = tokens_in(line.partition(b":")[2])
            if told is not None:
                return told
    return None


def tokens_in(document: bytes) -> Tokens | None:
    """Return what one JSON document tells, if it is one."""
    try:
        body = json.loads(document)
    except ValueError:
        return None  # the cut-off beginning of an event, or a comment of another kind
    if not isinstance(body, dict):
        return None
    usage, timings = body.get("usage"), body.get("timings")
    if isinstance(usage, dict):
        return Tokens(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    if isinstance(timings, dict):
        # Tokens that were in its cache are none of those that it evaluated.
        prompt = _count(timings, "prompt_n") + _count(timings, "cache_n")
        return Tokens(prompt, _count(timings, "predicted_n"))
    return None


def _count(counts: dict[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) else 0
