"""Keeping secrets out of logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

HIDDEN = "[hidden]"
LEAST = 8
"""Characters of a secret at least: `none` and `x` are keys, too, and ordinary words."""

# Each pattern keeps its first group: what says that a secret follows.
_PATTERNS = (
    r"\b(bearer\s+)[a-z0-9._~+/=-]{8,}",
    # Hugging Face, OpenAI.
    r"\b(hf_|sk-)[a-z0-9_-]{16,}",
    # `token=…`, `"token": "…"`, `AIPG_WORKER_TOKEN=…`, `api key: …`
    r"((?:token|api[ _-]?key|secret|password)[\"']?\s*[:=]\s*[\"']?)[a-z0-9._~+/=-]{16,}",
    # `token 0123…`: our own tokens are hexadecimal.
    r"(token\s+)[0-9a-f]{16,}\b",
)
_SECRETS = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _PATTERNS)
# Nearly no line has one. Looking in lower case for all at once costs a tenth of looking for each.
_ANY = re.compile("|".join(_PATTERNS))
# And each of them has one of these words; to look for them costs a tenth of that again.
_WORDS = ("token", "key", "bearer", "secret", "password", "sk-", "hf_")


def redact(text: str) -> str:
    """Return the text with bearer tokens, API keys and our own tokens hidden."""
    lower = text.lower()
    # "tokens" announces a number, in every line about an answer: no pattern goes on with an s.
    words = lower.replace("tokens", "")
    if not any(word in words for word in _WORDS) or _ANY.search(lower) is None:
        return text
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that hides these very secrets, wherever they stand in a text."""
    # The longest first: one may be a part of another.
    known = sorted((each for each in secrets if len(each) >= LEAST), key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in known:
            text = text.replace(secret, HIDDEN)
        return text

    return hide
