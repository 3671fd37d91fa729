"""The HTTP client that the kernel and its plugins talk to workers with."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import httpx

from .tracing import current_trace

LIMITS = httpx.Limits(keepalive_expiry=2)
"""Idle connections go after so many seconds: many servers close theirs after five, and a request
that is just then sent on one is lost."""


class WorkerKeys(httpx.Auth):
    """Sends each worker its own key, where it asks for one; `keys` are by base URL."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = keys

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the key to a request that brings none of its own."""
        url = request.url
        key = self._keys.get(f"{url.scheme}://{url.host}:{url.port}")
        if key is not None and "Authorization" not in request.headers:
            request.headers["Authorization"] = f"Bearer {key}"
        yield request


async def add_trace(request: httpx.Request) -> None:
    """Tell a worker which trace its request belongs to (an event hook of httpx)."""
    for name, value in current_trace().items():
        request.headers.setdefault(name, value)


def worker_client(keys: Mapping[str, str]) -> httpx.AsyncClient:
    """Return a client for the workers of one kernel."""
    # A proxy of the environment has no business between us and our own workers.
    return httpx.AsyncClient(
        auth=WorkerKeys(keys),
        trust_env=False,
        limits=LIMITS,
        event_hooks={"request": [add_trace]},
    )
