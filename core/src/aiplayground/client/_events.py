"""Events of a kernel elsewhere, on a connection of their own.

A reader that is slow makes its kernel wait for nobody: events that do not fit any more are replaced
by a snapshot, and a connection that breaks is opened anew, which begins with one as well.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from aiplayground.api import ApiServiceInformation
from aiplayground.errors import ServiceNotAvailable

from ._place import Address, unpack

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from websockets.asyncio.client import ClientConnection

SNAPSHOT = "snapshot"

ANSWER_PATIENCE = 30.0
"""Seconds for the answer to a subscription."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to connect again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEvent:
    """Something that happened.

    `data` has the shape that the reference names for the event; of a `snapshot`, which comes first
    and after each gap, it is the list of all services.
    """

    name: str
    seq: int
    time: float
    data: Any


async def events(
    address: Address, names: Sequence[str], patience: float
) -> AsyncGenerator[RemoteEvent, None]:
    """Yield events without end; `names` picks some, none of them means all.

    Raises `ServiceNotAvailable` when the kernel cannot be reached for `patience` seconds, and
    `InvalidParameters` for an unknown name.
    """
    since: float | None = None
    while True:
        connection = await connected(address, since, patience)
        try:
            async for event in _of_one(connection, names):
                since = None
                yield event
        finally:
            await connection.close()
        since = time.monotonic()


async def connected(address: Address, since: float | None, patience: float) -> ClientConnection:
    """Connect; the first time at once or never, again and again after a connection that broke."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await address.open()
        except ServiceNotAvailable:
            if since is None or time.monotonic() - since > patience:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _of_one(
    connection: ClientConnection, names: Sequence[str]
) -> AsyncGenerator[RemoteEvent, None]:
    """Yield the events of a connection until it breaks or misses one."""
    from websockets.exceptions import ConnectionClosed

    with suppress(ConnectionClosed):
        yield await _subscribed(connection, names)
        expected = 1
        async for text in connection:
            told = json.loads(text)
            params = told["params"]
            if params["seq"] != expected:
                return
            expected += 1
            yield _event(told["method"], params)


async def _subscribed(connection: ClientConnection, names: Sequence[str]) -> RemoteEvent:
    params = [list(names)] if names else []
    call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params}
    await connection.send(json.dumps(call))
    try:
        async with asyncio.timeout(ANSWER_PATIENCE):
            told = json.loads(await connection.recv())
    except TimeoutError:
        raise ServiceNotAvailable("The kernel did not answer the subscription.") from None
    if "error" in told:
        raise unpack(told["error"])
    return _event(SNAPSHOT, {"seq": 0, "time": time.time(), **told["result"]})


def _event(name: str, params: dict[str, Any]) -> RemoteEvent:
    plain = params["services"] if name == SNAPSHOT else params["data"]
    shape = _shapes().get(name)
    data = shape.validate_python(plain) if shape else plain
    return RemoteEvent(name=name, seq=params["seq"], time=params["time"], data=data)


@cache
def _shapes() -> dict[str, TypeAdapter[Any]]:
    from pydantic import TypeAdapter

    from aiplayground.notices import NOTICES

    shapes = {notice.name: TypeAdapter(notice.shape) for notice in NOTICES.values()}
    return {**shapes, SNAPSHOT: TypeAdapter(list[ApiServiceInformation])}
