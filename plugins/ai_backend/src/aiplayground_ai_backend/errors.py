"""How errors look outside: one table of statuses, one body for every kind of client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from aiplayground.errors import (
    AIPlaygroundError,
    ErrorCode,
    InvalidParameters,
    ModelNotFound,
    ServiceNotAvailable,
    from_dict,
)
from aiplayground.serving.replies import error_body as plain_body
from aiplayground.serving.replies import status_of as plain_status

Dialect = Literal["plain", "openai", "anthropic"]

_BY_REASON = {
    "disk-full": 507,
    "headers-too-large": 431,
    "slow": 408,
    "too-many-requests": 429,
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class TooManyRequests(ServiceNotAvailable):
    """The queue is full; `retry_after` is in whole seconds."""

    def __init__(self, message: str, retry_after: int, **details: Any) -> None:
        reason = {"reason": "too-many-requests", "retry_after": retry_after}
        super().__init__(message, details={**reason, **details})
        self.retry_after = retry_after


def status_of(error: AIPlaygroundError) -> int:
    """Return the HTTP status for an error."""
    special = _BY_REASON.get(str(error.details.get("reason")))
    if special is None:
        return plain_status(error)
    if special == 507 and error.code is not ErrorCode.FILE_OPERATION:
        return plain_status(error)
    return special


def body_of(error: AIPlaygroundError, dialect: Dialect) -> dict[str, Any]:
    """Return the documented body, with what the dialect's own clients read beside it."""
    body = plain_body(error, openai=dialect != "plain")
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status_of(error), "api_error")
        body |= {"type": "error", "error": {"type": kind, "message": error.message}}
    return body


def headers_of(error: AIPlaygroundError) -> list[tuple[bytes, bytes]]:
    """Return the response headers that belong to an error."""
    status = status_of(error)
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if status == 405:
        allowed = list(error.details.get("allowed", ()))
        return [(b"allow", ", ".join([*allowed, *(["HEAD"] if "GET" in allowed else [])]).encode())]
    if isinstance(error, TooManyRequests):
        return [(b"retry-after", str(error.retry_after).encode())]
    return []


def internal(error: Exception) -> AIPlaygroundError:
    """Return what is told of a defect: its kind, and that the log has the rest."""
    return AIPlaygroundError(
        "The gateway failed on this request. Its log has the details: aipg logs ai-backend",
        details={"exception": type(error).__name__},
    )


def from_upstream(status: int, body: object, service: str) -> AIPlaygroundError:
    """Turn the body of a worker's refusal, whoever wrote the worker, into an error of ours."""
    told: Mapping[str, Any] = body if isinstance(body, dict) else {}
    if isinstance(told.get("code"), int) and told["code"] < 0:
        return from_dict(dict(told))
    inner = told.get("error")
    message = inner.get("message") if isinstance(inner, dict) else inner or told.get("message")
    kinds: dict[int, type[AIPlaygroundError]] = {404: ModelNotFound, 503: ServiceNotAvailable}
    kind = kinds.get(status, InvalidParameters if 400 <= status < 500 else AIPlaygroundError)
    text = str(message or f"The worker answered HTTP {status} without saying why.")
    return kind(text, details={"service": service, "status": status})
