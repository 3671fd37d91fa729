"""Calls over one connection, which is opened when it is needed and again after it broke."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ServiceNotAvailable

from ._place import Address, lost, unpack

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class Calls:
    """JSON-RPC calls to one kernel."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def call(self, method: str, params: Sequence[Any], timeout: float) -> Any:
        """Return the result; raises what the method fails with, `ServiceNotAvailable` too late."""
        try:
            async with asyncio.timeout(timeout):
                return await self._call(method, list(params))
        except TimeoutError:
            raise ServiceNotAvailable(
                f"{method} was not answered within {timeout:g} s; it may still go on.",
                details={"method": method},
            ) from None

    async def _call(self, method: str, params: list[Any]) -> Any:
        from websockets.exceptions import ConnectionClosed

        connection = await self._connected()
        id_ = next(self._ids)
        waiting = self._waiting[id_] = asyncio.get_running_loop().create_future()
        message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        try:
            await connection.send(_text_of(message))
            return await waiting
        except ConnectionClosed as error:
            raise lost(error) from error
        finally:
            del self._waiting[id_]

    async def _connected(self) -> ClientConnection:
        async with self._opening:
            if self._reader is not None and self._reader.done():
                await self.aclose()
            if self._connection is None:
                self._connection = await self._address.open()
                self._reader = asyncio.create_task(self._read(self._connection), name="IPC client")
            return self._connection

    async def _read(self, connection: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                told = json.loads(await connection.recv())
                waiting = self._waiting.get(told.get("id"))
                if waiting is None or waiting.done():
                    continue  # given up meanwhile
                if "error" in told:
                    waiting.set_exception(unpack(told["error"]))
                else:
                    waiting.set_result(told["result"])
        except ConnectionClosed as error:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(lost(error))

    async def aclose(self) -> None:
        """Close the connection; calls in progress end with `ServiceNotAvailable`."""
        connection, self._connection = self._connection, None
        reader, self._reader = self._reader, None
        if connection is not None:
            await connection.close()
        if reader is not None:
            await asyncio.wait({reader})


def _text_of(message: dict[str, Any]) -> str:
    try:
        return json.dumps(message, allow_nan=False)
    except ValueError as error:
        raise InvalidParameters(
            "JSON has no such number: NaN and the infinities cannot be sent."
        ) from error
