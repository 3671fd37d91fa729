"""The trace that a request belongs to, on its way to the worker that answers it.

What takes requests from outside (the gateway, an embedder's own server) puts their trace around the
call of the kernel; the kernel's client for workers (`ServiceContext.http`) sends it along. Source:
W3C, "Trace Context".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_NAMES = ("traceparent", "tracestate")
_NONE: Mapping[str, str] = MappingProxyType({})

_current: ContextVar[Mapping[str, str]] = ContextVar("aiplayground_trace", default=_NONE)


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers, by lower-case names, that name a request's trace.

    None if `traceparent` is missing or malformed: `tracestate` means nothing without it.
    """
    if not _PARENT.fullmatch(headers.get("traceparent", "")):
        return {}
    return {name: headers[name] for name in _NAMES if name in headers}


@contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[None]:
    """Send the trace of these headers along with every request to a worker, within the block."""
    token = _current.set(trace_of(headers))
    try:
        yield
    finally:
        _current.reset(token)


def current_trace() -> Mapping[str, str]:
    """Return the headers of the trace that the running task works for; empty if there is none."""
    return _current.get()
