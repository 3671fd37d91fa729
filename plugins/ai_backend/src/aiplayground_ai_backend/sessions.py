"""Secrets of a running gateway: its token, the API key, and links that log a browser in once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Container
from typing import TYPE_CHECKING

from aiplayground.secrets import API_KEY

if TYPE_CHECKING:
    from aiplayground.secrets import Secrets

LINK_LIFETIME = 600.0
"""Seconds for which a link can be used."""

MAX_SESSIONS = 64
"""Browsers that are logged in at the same time; the oldest is forgotten."""

_SECRET_BYTES = 32


class Sessions(Container[str]):
    """The browsers that used a link, and the links that wait for theirs."""

    def __init__(self) -> None:
        self._links: dict[str, float] = {}
        self._sessions: dict[str, None] = {}

    def __contains__(self, session: object) -> bool:
        return session in self._sessions

    def new_code(self) -> str:
        """Return the code of a new link; it works once, for `LINK_LIFETIME` seconds."""
        now = time.monotonic()
        self._links = {code: until for code, until in self._links.items() if until > now}
        code = new_secret()
        self._links[code] = now + LINK_LIFETIME
        return code

    def log_in(self, code: str) -> str | None:
        """Return a new session for a code that is still good; the code is used up then."""
        until = self._links.pop(code, None)
        if until is None or until < time.monotonic():
            return None
        session = new_secret()
        self._sessions[session] = None
        while len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session


def new_secret() -> str:
    """Return a secret that nobody can guess."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def api_key(kept: Secrets) -> str:
    """Return the API key of this home; it is made the first time. Blocks.

    Raises `ServiceNotAvailable` when the keyring holds one and cannot be asked: a new one in its
    place would lock out those who have it.
    """
    key = kept.get(API_KEY, strict=True)
    if key is None:
        key = new_secret()
        kept.set(API_KEY, key)
    return key
