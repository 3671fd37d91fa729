"""What went wrong at the Hub, in words that say what to do next: a pure function of the answer."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from aiplayground.errors import (
    AIPlaygroundError,
    FileOperationError,
    ModelNotFound,
    ServiceNotAvailable,
)

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""

PROXY_REFUSES = 407

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SET_TOKEN = "set a token with: aipg config hf-token"


class Later(Exception):
    """The same request may succeed later; `wait` is in seconds, where the server says it."""

    def __init__(self, why: str, wait: float | None = None, *, status: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait
        self.status = status


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait (RFC 9110, 10.2.3; the Hub's `RateLimit`)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    if value:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            return None
    for part in headers.get("ratelimit", "").split(";"):
        name, _, seconds = part.strip().partition("=")
        if name == "t" and seconds.isdecimal():
            return float(seconds)
    return None


def explain(
    status: int, headers: Mapping[str, str], *, repo: str, endpoint: str, path: str, token: bool
) -> AIPlaygroundError | Later:
    """Return the error for an answer of the Hub that is none of what was asked for.

    The Hub names the cause in `X-Error-Code` and `X-Error-Message`.
    """
    code, said = headers.get("x-error-code", ""), headers.get("x-error-message", "")
    details: dict[str, Any] = {"repo": repo, "status": status}
    page = f"{endpoint}/{repo}"
    if status == PROXY_REFUSES:
        return proxy_refuses()
    if status in RETRIED:
        return Later(_busy(status), retry_after(headers), status=status)
    if code == "GatedRepo" or "gated" in said.lower():
        return _gated(repo, page, details, token=token)
    if status == 401 and token and code != "RepoNotFound":
        return ServiceNotAvailable(
            f"The Hub does not accept the token (HTTP 401). Make a new one at {endpoint}/settings/"
            f"tokens, and {_SET_TOKEN}.",
            details={**details, "reason": "bad-token"},
        )
    if code == "RevisionNotFound":
        return ModelNotFound(
            f"{repo} has no such revision. Leave it out for the newest one; {page}/tree/main shows "
            "its branches.",
            details={**details, "reason": "no-revision"},
        )
    if code == "EntryNotFound":
        return ModelNotFound(
            f"{repo} has no file '{path}'. {page}/tree/main shows its files.",
            details={**details, "reason": "no-file", "file": path},
        )
    if status in (401, 404) or code == "RepoNotFound":
        return _no_repo(repo, endpoint, details, token=token)
    if status == 403:
        return ServiceNotAvailable(
            f"The Hub refuses {repo} (HTTP 403{f': {said}' if said else ''}). The token needs read "
            f"access to it: look at {endpoint}/settings/tokens, and {_SET_TOKEN}.",
            details={**details, "reason": "forbidden"},
        )
    return ServiceNotAvailable(
        f"{endpoint} answers HTTP {status}{f' ({said})' if said else ''} for {repo}. Check the "
        "setting 'hub.endpoint', and try again.",
        details=details,
    )


def gave_up(later: Later, *, endpoint: str, token: bool, attempts: int) -> ServiceNotAvailable:
    """Return the error after waiting enough."""
    details: dict[str, Any] = {"endpoint": endpoint}
    if later.status is not None:
        details["status"] = later.status
    if later.status == 429:
        wait = f" It asks to wait {later.wait:.0f} s." if later.wait else ""
        hint = "" if token else f" With a token the limits are higher: {_SET_TOKEN}."
        details |= {"reason": "rate-limited", "retryAfter": later.wait}
        return ServiceNotAvailable(
            f"The Hub takes no more requests from here for now (HTTP 429).{wait} What came is "
            f"kept; ask again later, or raise the setting 'hub.patience'.{hint}",
            details=details,
        )
    return ServiceNotAvailable(
        f"{endpoint} cannot be reached, or broke off {attempts} times: {later.why}. Check the "
        "connection, and the settings 'hub.endpoint', 'hub.proxy' and 'hub.ca_bundle'. What came "
        "is kept; ask again, and it goes on there.",
        details={**details, "reason": "unreachable"},
    )


def not_trusted(host: str, why: str) -> ServiceNotAvailable:
    """Return the error for a certificate of an authority that is not known, or for another host."""
    return ServiceNotAvailable(
        f"The certificate of {host} is not trusted: {why}. If your network, or a Hub of your own, "
        "has an authority of its own, name the file with its certificate (PEM) in the setting "
        "'hub.ca_bundle'.",
        details={"host": host, "reason": "certificate"},
    )


def proxy_refuses() -> ServiceNotAvailable:
    """Return the error for a proxy that wants to know who asks. Its address may hold a password."""
    return ServiceNotAvailable(
        "The proxy asks for a name and a password, or does not take those it got (HTTP 407). Write "
        "them into the setting 'hub.proxy', as in http://name:password@proxy:8080.",
        details={"status": PROXY_REFUSES, "reason": "proxy"},
    )


def disk_full(base: str, needed: int | None, free: int | None) -> FileOperationError:
    """Return the error for a disk that has too little room. Sizes in bytes."""
    sizes = ""
    if needed is not None and free is not None:
        sizes = f": {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
    return FileOperationError(
        f"The disk of {base} has too little room{sizes}. Free some, or put models elsewhere with "
        "the setting 'models.root'.",
        details={"reason": "disk-full", "folder": base, "needed": needed, "free": free},
    )


def write_failed(error: OSError, base: str) -> FileOperationError:
    """Return the error for a file that cannot be written."""
    if error.errno in FULL:
        return disk_full(base, None, None)
    return FileOperationError(
        f"{error.filename or base} cannot be written: {error.strerror or error}. Check the folder, "
        "or put models elsewhere with the setting 'models.root'.",
        details={"folder": base},
    )


def wrong_bytes(repo: str, path: str, source: str) -> FileOperationError:
    """Return the error for a file that is whole and not the one that the Hub lists."""
    return FileOperationError(
        f"{path} of {repo} came from {source} with other content than the Hub lists, twice. It was "
        "not kept. Try again; check the settings 'hub.mirror' and 'hub.endpoint' if they are set.",
        details={"reason": "checksum", "repo": repo, "file": path},
    )


def _gated(repo: str, page: str, details: dict[str, Any], *, token: bool) -> ServiceNotAvailable:
    then = (
        "The token that is set has no access to it: accept with the account that it belongs to."
        if token
        else f"Then {_SET_TOKEN}."
    )
    return ServiceNotAvailable(
        f"{repo} is gated: its authors want their conditions accepted first. Open {page} , sign in "
        f"and accept them. {then}",
        details={**details, "reason": "gated", "page": page},
    )


def _no_repo(repo: str, endpoint: str, details: dict[str, Any], *, token: bool) -> ModelNotFound:
    private = (
        "or it is private and the token has no access to it"
        if token
        else f"or it is private: then {_SET_TOKEN}"
    )
    name = repo.rpartition("/")[2]
    return ModelNotFound(
        f"There is no model '{repo}' on the Hub, {private}. Check the spelling: "
        f"{endpoint}/models?search={name}",
        details={**details, "reason": "no-repository"},
    )


def _busy(status: int) -> str:
    if status == 429:
        return "the Hub takes no more requests from here for now (HTTP 429)"
    return f"the server answers HTTP {status}"
