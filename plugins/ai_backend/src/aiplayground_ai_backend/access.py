"""Who may ask what: pure functions over the headers of a request.

The gateway listens where any web page that the user visits can send it requests. A page that made
its own name resolve to this computer (DNS rebinding) shows in Host; a page of another site shows in
Origin, or in Sec-Fetch-Site where the browser sends no Origin. Source: the Fetch standard, and
"Fetch Metadata Request Headers".
"""

from __future__ import annotations

import hmac
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from aiplayground.errors import InvalidParameters
from aiplayground.serving.access import LOOPBACK_HOSTS, host_of

Headers = Mapping[str, str]


class Access(StrEnum):
    """What a route asks for."""

    OPEN = "open"
    """Nothing on loopback; the API key beyond it."""
    CONTROL = "control"
    """The kernel's token, or the cookie that stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the gateway checks. `api_key` is set where it listens beyond loopback."""

    token: str
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    api_key: str | None = None
    cookie: str = "aipg-session"


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this computer alone."""
    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(headers: Headers, rules: Rules) -> None:
    """Refuse requests that are addressed to another name."""
    host = host_of(headers.get("host", ""))
    if host not in LOOPBACK_HOSTS and host not in rules.hosts:
        raise _forbidden(
            "The Host header must name this computer. Use 127.0.0.1 or localhost, or add the name "
            "to the setting 'allowed_hosts' of ai-backend."
        )


def check_origin(headers: Headers, method: str, rules: Rules) -> str | None:
    """Refuse requests of other sites' pages; return the origin to answer CORS for, if any."""
    origin = headers.get("origin")
    if origin is None:
        _check_fetch_site(headers, method)
        return None
    if origin in rules.origins:
        return origin
    if origin.partition("://")[2] == headers.get("host") and origin.startswith("http"):
        return None  # a page of ours: its browser asks for no CORS
    raise _forbidden(
        "Pages of other sites are refused. Add the page's origin to the setting "
        "'allowed_origins' of ai-backend if you trust it."
    )


def _check_fetch_site(headers: Headers, method: str) -> None:
    """Refuse what a browser loads for a foreign page without an Origin: scripts, pictures."""
    foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    link = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")
    if foreign and not link:
        raise _forbidden("Requests that pages of other sites make are refused.")


def cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that let an allowed page read the answer."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"x-request-id, retry-after"),
        (b"vary", b"origin"),
    ]


def preflight_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the answer to a CORS preflight of an allowed page."""
    asked = headers.get("access-control-request-headers", "authorization, content-type")
    return [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
        (b"access-control-allow-headers", asked.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]


def check_access(access: Access, headers: Headers, rules: Rules, sessions: Container[str]) -> bool:
    """Refuse requests without the secret that their route asks for; return `is_trusted`."""
    if is_trusted(headers, rules, sessions):
        return True
    if rules.api_key is not None and not _same(secret_of(headers), rules.api_key):
        raise _unauthorized("Every request needs the API key: Authorization: Bearer …")
    if access is Access.CONTROL:
        raise _unauthorized(
            "This needs the kernel's token: Authorization: Bearer …; the file that `aipg serve` "
            "names holds it."
        )
    return False


def is_trusted(headers: Headers, rules: Rules, sessions: Container[str]) -> bool:
    """Whether a request carries the kernel's token, or the cookie that stands for it."""
    given = secret_of(headers)
    return bool(given and _same(given, rules.token)) or session_of(headers, rules) in sessions


def secret_of(headers: Headers) -> str:
    """Return the secret that a request carries: a bearer token, or Anthropic's `x-api-key`."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def session_of(headers: Headers, rules: Rules) -> str | None:
    """Return the session that a request's cookie names."""
    if "cookie" not in headers:
        return None
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    return cookies[rules.cookie].value if rules.cookie in cookies else None


def _same(given: str, expected: str) -> bool:
    # Bytes, because compare_digest refuses text beyond ASCII.
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _forbidden(message: str) -> InvalidParameters:
    return InvalidParameters(message, details={"reason": "forbidden"})


def _unauthorized(message: str) -> InvalidParameters:
    return InvalidParameters(message, details={"reason": "unauthorized"})
