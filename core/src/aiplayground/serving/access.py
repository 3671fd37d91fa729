"""Who may ask what of a worker: pure functions over the headers of a request.

A worker listens on loopback, where any web page that the user visits can send it requests. A page
that made its own name resolve to 127.0.0.1 (DNS rebinding) shows in the Host header; a page of
another site shows in Origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from aiplayground.errors import InvalidParameters

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def host_of(authority: str) -> str:
    """Return the host of `host`, `host:port` or `[v6]:port`, in lower case; "" if malformed."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        return host.lower() if bracket and _is_port(rest) else ""
    host, colon, port = authority.partition(":")
    return host.lower() if _is_port(colon + port) else ""


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse requests that name another host, or come from another site's page."""
    if host_of(headers.get("host", "")) not in LOOPBACK_HOSTS:
        raise _forbidden("The Host header must name this computer: 127.0.0.1 or localhost.")
    origin = headers.get("origin")
    if origin is not None and host_of(origin.partition("://")[2]) not in LOOPBACK_HOSTS:
        raise _forbidden("Requests from pages of other sites are refused.")


def check_token(headers: Mapping[str, str], token: str | None) -> None:
    """Refuse control requests that do not carry the secret of kernel and worker."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Bytes, because compare_digest refuses text beyond ASCII.
    same = bool(token) and hmac.compare_digest(given.strip().encode(), (token or "").encode())
    if scheme.lower() != "bearer" or not same:
        raise InvalidParameters(
            "Loading and unloading need the kernel's token: Authorization: Bearer ….",
            details={"reason": "unauthorized"},
        )


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isdecimal())


def _forbidden(message: str) -> InvalidParameters:
    return InvalidParameters(message, details={"reason": "forbidden"})
