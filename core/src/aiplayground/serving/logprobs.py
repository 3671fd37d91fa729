"""Log probabilities in OpenAI's two shapes.

Source: the OpenAI API reference. Engines give a list with an entry for each token, in the shape of
the chat API; the older completions API has parallel lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def chat_logprobs(entries: Sequence[Entry] | None) -> dict[str, Any] | None:
    """Return `choices[].logprobs` of a chat, or None if there are none."""
    return None if entries is None else {"content": list(entries), "refusal": None}


def text_logprobs(entries: Sequence[Entry] | None, offset: int = 0) -> dict[str, Any] | None:
    """Return `choices[].logprobs` of a completion; `offset` is where the tokens begin, in
    characters of the answer."""
    if entries is None:
        return None
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [
            {each["token"]: each["logprob"] for each in entry.get("top_logprobs", ())}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def from_text(shape: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """Return entries for the `choices[].logprobs` of a completion: the inverse of the above."""
    if not shape or not shape.get("tokens"):
        return None
    tokens, values = shape["tokens"], shape.get("token_logprobs") or []
    tops = shape.get("top_logprobs") or [None] * len(tokens)
    return [
        {
            **_entry(token, value),
            "top_logprobs": [_entry(*pair) for pair in (top or {}).items()],
        }
        for token, value, top in zip(tokens, values, tops, strict=False)
    ]


def _entry(token: str, value: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
