"""Requests to workers, byte for byte.

aiohttp and not httpx: the client decides how fast streams pass (`docs/gateway.md` has figures).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from .errors import from_upstream

if TYPE_CHECKING:
    from aiplayground.errors import AIPlaygroundError
    from aiplayground.leases import Lease

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to a worker on this machine."""

KEEP_ALIVE = 60.0
"""Seconds for which an idle connection is kept: less than the worker's own 75."""

MAX_REFUSAL = 2**20
"""Bytes of a refusal's body that are read."""


class Upstream:
    """The connections to the workers; `patience` is how long, in seconds, one may send nothing."""

    def __init__(self, patience: float) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=patience
        )
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(
        self, lease: Lease, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; yields the response if it is a success.

        Leaving early closes the connection, which tells the worker to stop. Raises what the worker
        refused with, or why it went away, also for errors of the connection inside the block.
        """
        url = lease.base_url + path
        try:
            response = await self._open(url, body, headers)
            async with response:
                if response.status >= 300:
                    raise await _refusal(response, lease.service)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise await lease.lost(error) from error

    async def _open(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        session = self._session or self._begin()
        try:
            return await session.post(url, data=body, headers=headers)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            # A connection that was kept open and that the worker closed just now: nothing of an
            # answer had come. Once, and if the worker is gone this says so.
            return await session.post(url, data=body, headers=headers)

    def _begin(self) -> aiohttp.ClientSession:
        # No limit of its own: the queues are the limit. No proxy of the environment either.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            trust_env=False,
        )
        return self._session

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _refusal(response: aiohttp.ClientResponse, service: str) -> AIPlaygroundError:
    data = await response.content.read(MAX_REFUSAL)
    try:
        body = json.loads(data)
    except ValueError:
        body = {"message": data[:500].decode("utf-8", "replace")}
    return from_upstream(response.status, body, service)
