"""A gate in front of a worker: passes everything on, until it is told to break an answer.

Answers are responses to POST requests: health probes and listings pass whatever is planned. The
gate of a worker has a port of its own, which the kernel takes for the worker's address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

from .faults import Fault, FaultKind

HOST = "127.0.0.1"
_SIZE = 64 * 1024


class Gate:
    """The gate of one worker process. `target` is the worker's own port, at `host`.

    `planned` holds the faults of the answers to come, one for each, in order; `requests` counts
    POST requests, `answered` the bytes of the last answer, `open` the requests in progress.
    """

    def __init__(self, host: str = HOST) -> None:
        self.host = host
        self.target = 0
        self.port = 0
        self.planned: deque[Fault] = deque()
        self.requests = 0
        self.answered = 0
        self.open = 0
        self.stalled = 0
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.released = asyncio.Event()

    def listen(self) -> None:
        """Begin to accept; sets `port`."""
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def release(self) -> None:
        """Let stalled answers go on, and forget what is planned."""
        self.planned.clear()
        self.released.set()
        self.released = asyncio.Event()

    async def close(self) -> None:
        """End the gate and every connection through it."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        # Not asyncio's server: what it accepts while it is closed, nobody closes (Python 3.11).
        if self._listener is None:
            return
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # the client is gone again
        task = asyncio.get_running_loop().create_task(self._serve(accepted), name="gate")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: accepted.close())

    async def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(sock=accepted)
            await _Connection(self, reader, writer).run()


class _Connection:
    """One connection of a client, and the one to the worker that it is passed on to."""

    def __init__(
        self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._gate = gate
        self._reader = reader
        self._writer = writer
        self._fault: Fault | None = None
        self._posting = False
        self._passed = 0

    async def run(self) -> None:
        upward: asyncio.StreamWriter | None = None
        try:
            source, upward = await asyncio.open_connection(self._gate.host, self._gate.target)
            await self._pump_both(source, upward)
        except OSError:
            self._abort()  # the worker is gone: so is its connection
        finally:
            self._end_post()
            writers = [self._writer] if upward is None else [self._writer, upward]
            for writer in writers:
                writer.close()
            for writer in writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump_both(self, source: asyncio.StreamReader, upward: asyncio.StreamWriter) -> None:
        pumps = {
            asyncio.ensure_future(self._up(upward)),
            asyncio.ensure_future(self._down(source)),
        }
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            for pump in pumps:
                if not pump.cancelled():
                    pump.exception()

    async def _up(self, upward: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(_SIZE):
            if data.startswith(b"POST "):
                self._begin_post()
            elif data.startswith(b"GET "):
                self._end_post()
            if self._fault is not None and self._fault.kind is FaultKind.REPLY:
                await self._reply(self._fault)
                return
            upward.write(data)
            await upward.drain()

    def _begin_post(self) -> None:
        self._end_post()
        gate = self._gate
        gate.requests += 1
        gate.open += 1
        gate.answered = 0
        self._posting, self._passed = True, 0
        self._fault = gate.planned.popleft() if gate.planned else None

    def _end_post(self) -> None:
        if self._posting:
            self._posting = False
            self._gate.open -= 1

    async def _down(self, source: asyncio.StreamReader) -> None:
        while data := await source.read(_SIZE):
            if self._posting and self._fault is not None:
                if not await self._broken(data, self._fault):
                    return
            else:
                self._count(data)
                self._writer.write(data)
                await self._writer.drain()

    def _count(self, data: bytes) -> None:
        self._passed += len(data)
        if self._posting:
            self._gate.answered = self._passed

    async def _broken(self, data: bytes, fault: Fault) -> bool:
        """Pass on what comes before the fault, then let it happen; False: the connection ends."""
        allowed = data[: max(0, fault.at - self._passed)]
        rest = data[len(allowed) :]
        self._count(allowed)
        if allowed:
            self._writer.write(allowed)
            await self._writer.drain()
        if not rest:
            return True
        if fault.kind is FaultKind.CUT:
            if fault.reset:
                self._abort()
            return False
        self._gate.stalled += 1
        await self._gate.released.wait()
        self._fault = None
        self._count(rest)
        self._writer.write(rest)
        return True

    async def _reply(self, fault: Fault) -> None:
        self._writer.write(fault.reply)
        await self._writer.drain()

    def _abort(self) -> None:
        self._writer.transport.abort()
