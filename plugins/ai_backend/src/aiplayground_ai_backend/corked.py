"""Sending the head of an answer together with what follows it."""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "

JOINED = 65_536
"""Bytes of a body that are joined to its head; more is not worth the copy."""


class Corked:
    """A transport that holds a head back until its body follows; else the one that it wraps.

    uvicorn writes the two one after the other, and a loop that writes at once makes two packets of
    them: two system calls here, and two awakenings of the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Write it, now or at the latest in the next turn of the loop."""
        if not self._head and data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self.flush)
            return
        if self._head and len(data) <= JOINED:
            data, self._head = self._head + data, b""
        self.flush()
        self.transport.write(data)

    def flush(self) -> None:
        """Write what is held back."""
        if self._head:
            head, self._head = self._head, b""
            self.transport.write(head)

    def close(self) -> None:
        """Close it once everything is written."""
        self.flush()
        self.transport.close()
