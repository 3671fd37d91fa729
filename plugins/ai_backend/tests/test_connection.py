"""The gateway's own HTTP client, against workers that send exactly what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.fakes import eventually

from aiplayground.errors import AIPlaygroundError, ServiceNotAvailable
from aiplayground.leases import Lease
from aiplayground_ai_backend.connection import HIGH_WATER
from aiplayground_ai_backend.upstream import Upstream, origin_of, request_of

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def worker(serve: Serve) -> AsyncIterator[Lease]:
    async def lost(error: Exception) -> AIPlaygroundError:
        return ServiceNotAvailable(f"lost: {error}")

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end has gone, as some tests want it to, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Lease("s", "m", f"http://127.0.0.1:{port}", lost)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def always(answer: bytes, *, then: str = "wait") -> Serve:
    """Answer every request so, then wait for the next one or close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
            if then == "close":
                return

    return serve


async def ask(upstream: Upstream, lease: Lease, *, whole: bool = False) -> list[bytes]:
    pieces = []
    async with upstream.post(lease, "/p", b"{}", {}, whole=whole) as answer:
        while piece := await answer.read():
            pieces.append(piece)
    return pieces


LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (LENGTH, "wait"),
        (CHUNKED + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", "wait"),
        (b"HTTP/1.1 200 OK\r\n\r\nbody", "close"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nbody", "close"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH, "wait"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH, "wait"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_every_way_to_delimit_an_answer(answer: bytes, then: str, whole: bool) -> None:
    upstream = Upstream(10)
    async with worker(always(answer, then=then)) as lease:
        for _ in range(3):
            assert b"".join(await ask(upstream, lease, whole=whole)) == b"body"
        await upstream.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
async def test_what_breaks_off_or_is_no_http_is_an_error(answer: bytes) -> None:
    upstream = Upstream(10)
    async with worker(always(answer, then="close")) as lease:
        for whole in (False, True):
            with pytest.raises(ServiceNotAvailable, match="lost"):
                await ask(upstream, lease, whole=whole)


async def test_connections_are_used_again() -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await always(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")(reader, writer)

    upstream = Upstream(10)
    async with worker(serve) as lease:
        for _ in range(5):
            await ask(upstream, lease)
        assert opened == 1
        await asyncio.gather(*(ask(upstream, lease) for _ in range(3)))
        assert opened == 3
        await upstream.aclose()
        assert await ask(upstream, lease) == [b"body"]
        assert opened == 4
        await upstream.aclose()


async def test_leaving_early_tells_the_worker() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        try:
            await reader.read()
        finally:
            gone.set()

    upstream = Upstream(10)
    async with worker(serve) as lease, asyncio.timeout(10):
        async with upstream.post(lease, "/p", b"{}", {}, whole=False) as answer:
            assert await answer.read() == b"a"
        await gone.wait()
        assert not upstream._idle  # nobody else gets the rest


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("begin", [b"", CHUNKED, CHUNKED + b"2\r\nbo\r\n"])
async def test_a_silent_worker_is_given_up(whole: bool, begin: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin if await read_request(reader) else b"")
        await reader.read()

    async with worker(serve) as lease, asyncio.timeout(10):
        with pytest.raises(ServiceNotAvailable, match=r"nothing for 0\.1 s"):
            await ask(Upstream(0.1), lease, whole=whole)


async def test_workers_that_have_ended_leave_nothing_behind() -> None:
    upstream = Upstream(10)
    for _ in range(3):
        async with worker(always(LENGTH)) as lease:
            await ask(upstream, lease)
            upstream._idle[origin_of(lease.base_url)][0].close()
    assert len(upstream._idle) == 1


async def test_a_worker_waits_while_nobody_reads_and_is_not_taken_for_silent() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(400):
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with (
        worker(serve) as lease,
        asyncio.timeout(20),
        Upstream(0.1).post(lease, "/p", b"{}", {}, whole=False) as answer,
    ):
        got = len(await answer.read())
        await eventually(lambda: answer._paused)
        await asyncio.sleep(0.3)
        assert answer._size < 2 * HIGH_WATER + 2**20
        assert sent < 400 * 65_536
        while piece := await answer.read():
            got += len(piece)
    assert got == sent == 400 * 65_536


async def test_what_comes_unasked_ends_the_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"
        await read_request(reader)
        writer.write(answer + b"a")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(answer + b"b")  # nobody asked: it must not answer the next request
        await reader.read()

    upstream = Upstream(10)
    async with worker(serve) as lease:
        assert await ask(upstream, lease) == [b"a"]
        await eventually(lambda: not upstream._idle[origin_of(lease.base_url)][0].usable)
        assert await ask(upstream, lease) == [b"a"]
        await upstream.aclose()


def test_requests_say_where_they_go() -> None:
    origin = origin_of("https://user:secret@[::1]:8443/v3")
    assert (origin.host, origin.port, origin.tls) == ("::1", 8443, True)
    sent = request_of(origin, "/v1/x", b"{}", {"traceparent": "t"})
    assert sent.startswith(b"POST /v3/v1/x HTTP/1.1\r\nHost: [::1]:8443\r\n")
    assert sent.endswith(b"traceparent: t\r\nContent-Length: 2\r\n\r\n{}")
    assert b"secret" not in sent
