"""Secrets of a running gateway: its token, the API key, and links that log a browser in once."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Container
from pathlib import Path

from aiplayground.paths import file_error, make_folder

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


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user can read (0600), in place of a former one. Blocks."""
    make_folder(path.parent, private=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        raise file_error("write", path, error) from error


def api_key(path: Path) -> str:
    """Return the API key in the file; it is made the first time. Blocks."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        key = ""
    except OSError as error:
        raise file_error("read", path, error) from error
    if not key:
        key = new_secret()
        write_private(path, key + "\n")
    return key
