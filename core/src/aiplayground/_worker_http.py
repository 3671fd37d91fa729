"""The HTTP client of one kernel, made at first use: most programs never need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


class WorkerHttp:
    """What a kernel and its plugins talk to workers with. `keys` are those of workers, by URL."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self._client: httpx.AsyncClient | None = None

    def client(self) -> httpx.AsyncClient:
        """Return the client, the same one each time."""
        if self._client is None:
            from ._client import worker_client

            self._client = worker_client(self.keys)
        return self._client

    async def renew(self) -> None:
        """Close the connections that are kept for the next request."""
        await self.aclose()
        self._client = None

    async def aclose(self) -> None:
        """Close the client for good."""
        if self._client is not None:
            await self._client.aclose()
