"""Requests to workers, over connections that are kept open."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from .connection import Broken, Connection
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


class Origin(NamedTuple):
    """Where a worker listens; `head` is what requests to it have in common."""

    host: str
    port: int
    tls: bool
    prefix: str
    head: bytes


class Upstream:
    """The connections to the workers; `patience` is how long, in seconds, one may send nothing."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._idle: dict[Origin, deque[Connection]] = {}

    def post(
        self, lease: Lease, path: str, body: bytes, headers: Mapping[str, str], *, whole: bool
    ) -> _Posted:
        """Send a request; gives the connection if the answer is a success, all there if `whole`.

        Leaving early closes the connection, which tells the worker to stop. Raises what the worker
        refused with, or why it went away, also for errors of the connection inside the block.
        """
        origin = origin_of(lease.base_url)
        return _Posted(self, lease, origin, request_of(origin, path, body, headers), whole=whole)

    async def ask(self, origin: Origin, request: bytes, *, whole: bool) -> Connection:
        """Send a request over a connection that is kept, or a new one; raises `Broken`."""
        connection = self._kept(origin)
        if connection is not None:
            try:
                return await _asked(connection, request, whole=whole)
            except Broken:
                if connection.answered:
                    raise
                # The worker closed it just now, as idle: nothing of an answer had come. Once, and
                # if the worker is gone the new connection says so.
        return await _asked(await self._connect(origin), request, whole=whole)

    def _kept(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin, ())
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self, origin: Origin) -> Connection:
        self._forget_the_gone()
        loop = asyncio.get_running_loop()
        tls = True if origin.tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._patience), origin.host, origin.port, ssl=tls
                )
        except OSError as error:
            raise Broken(str(error) or "it could not be reached in time") from error
        return connection

    def _forget_the_gone(self) -> None:
        """Drop the connections to workers that have ended: each start has a port of its own."""
        for origin, idle in list(self._idle.items()):
            if not any(each.usable for each in idle):
                del self._idle[origin]

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection for the next request, if it is of use for one."""
        if not connection.usable:
            connection.close()
            return
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        # The newest is taken first, so that those which are not needed grow old and go.
        while idle[0].idle_since < connection.idle_since - KEEP_ALIVE or not idle[0].usable:
            idle.popleft().close()

    async def aclose(self) -> None:
        """Close every connection that is not in use."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


class _Posted:
    """A request and its answer; a class, because every request makes one."""

    __slots__ = ("_connection", "_lease", "_origin", "_request", "_upstream", "_whole")

    def __init__(
        self, upstream: Upstream, lease: Lease, origin: Origin, request: bytes, *, whole: bool
    ) -> None:
        self._upstream = upstream
        self._lease = lease
        self._origin = origin
        self._request = request
        self._whole = whole

    async def __aenter__(self) -> Connection:
        try:
            connection = await self._upstream.ask(self._origin, self._request, whole=self._whole)
        except Broken as error:
            raise await self._lease.lost(error) from error
        self._connection = connection
        if connection.status < 300:
            return connection
        try:
            raise await _refusal(connection, self._lease.service)
        except Broken as error:
            raise await self._lease.lost(error) from error
        finally:
            self._upstream.give_back(self._origin, connection)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._upstream.give_back(self._origin, self._connection)
        if isinstance(error, Broken):
            raise await self._lease.lost(error) from error


async def _asked(connection: Connection, request: bytes, *, whole: bool) -> Connection:
    try:
        await connection.ask(request, whole=whole)
    except BaseException:
        connection.close()
        raise
    return connection


async def _refusal(connection: Connection, service: str) -> AIPlaygroundError:
    data = b""
    while len(data) < MAX_REFUSAL and (more := await connection.read()):
        data += more
    try:
        body = json.loads(data)
    except ValueError:
        body = {"message": data[:500].decode("utf-8", "replace")}
    return from_upstream(connection.status, body, service)


@lru_cache(maxsize=64)
def origin_of(base_url: str) -> Origin:
    """Read a worker's base URL."""
    url = urlsplit(base_url)
    tls = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if tls else 80)
    name = url.netloc.rpartition("@")[2]
    head = f"Host: {name}\r\nAccept: */*\r\nContent-Type: application/json\r\n".encode("latin-1")
    return Origin(host, port, tls, url.path, head)


def request_of(origin: Origin, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a request as it is sent."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    first = f"POST {origin.prefix}{path} HTTP/1.1\r\n"
    return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
        first.encode("latin-1"),
        origin.head,
        more.encode("latin-1"),
        len(body),
        body,
    )
