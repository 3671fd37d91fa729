"""`/ipc` over real sockets: who may come in, and that nobody slows anybody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PATIENCE, Fake, eventually, nothing_leaks
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aiplayground import Kernel
from aiplayground.events import WebServiceExit
from aiplayground_ai_backend.ipc.session import QUEUE
from aiplayground_ai_backend.ipc.websocket import LimitedWebSocket

from .serving import gateway, token

CALL = {"jsonrpc": "2.0", "method": "getServices", "id": 1}


def address(kernel: Kernel) -> str:
    return kernel.service("ai-backend").base_url.replace("http", "ws") + "/ipc"


@asynccontextmanager
async def client(
    kernel: Kernel, *, trusted: bool = True, **options: Any
) -> AsyncIterator[ClientConnection]:
    headers = {**(token(kernel) if trusted else {}), **options.pop("headers", {})}
    options = {"proxy": None, "compression": None, **options}
    async with connect(address(kernel), additional_headers=headers, **options) as connection:
        yield connection


async def ask(connection: ClientConnection, method: str, *params: Any) -> Any:
    message = {"jsonrpc": "2.0", "method": method, "params": list(params), "id": 1}
    await connection.send(json.dumps(message))
    async with asyncio.timeout(PATIENCE):
        while "id" not in (told := json.loads(await connection.recv())):
            pass
    return told.get("result", told.get("error"))


async def test_a_client_calls_and_hears(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _), client(kernel) as one:
        told = await ask(one, "subscribe")
        assert [each["name"] for each in told["services"]] == ["fake", "ai-backend"]
        await one.send(json.dumps({**CALL, "method": "sendStartSignal", "params": ["fake"]}))
        seen = [json.loads(await one.recv()) for _ in range(3)]
        assert [each.get("method") for each in seen].count("serviceInfoUpdate") == 2
        assert {"jsonrpc": "2.0", "id": 1, "result": "Running"} in seen


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:5000", "Origin": "http://evil.example:5000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_foreign_pages_are_refused(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with gateway(tmp_path) as (kernel, _):
        with pytest.raises(InvalidStatus) as refused:
            await _with_headers(kernel, headers)
    assert refused.value.response.status_code == status
    body = json.loads(refused.value.response.body or b"")
    assert (body["code"], body["details"]["reason"]) == (-4, "forbidden")


async def _with_headers(kernel: Kernel, headers: dict[str, str]) -> None:
    # The library sets Host itself: here it goes to one name and is addressed to another.
    host = headers.pop("Host", None)
    port = kernel.service("ai-backend").port
    url = f"ws://{host.split(':')[0]}:{port}/ipc" if host else address(kernel)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        every = {**token(kernel), **headers}
        async with connect(url, additional_headers=every, sock=sock, proxy=None):
            pass


async def test_pages_of_ours_and_of_allowed_origins_come_in(tmp_path: Path) -> None:
    own = {"allowed_origins": ["http://localhost:3000"]}
    async with gateway(tmp_path, own=own) as (kernel, _):
        for origin in (kernel.service("ai-backend").base_url, "http://localhost:3000"):
            async with client(kernel, trusted=False, headers={"Origin": origin}) as one:
                assert len(await ask(one, "getServices")) == 1


async def test_without_the_token_nothing_is_changed(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "aipg-session=x"}):
            async with client(kernel, trusted=False, headers=headers) as one:
                assert len(await ask(one, "getServices")) == 2
                refused = await ask(one, "sendStartSignal", "fake")
                assert (refused["code"], refused["data"]) == (-4, {"reason": "unauthorized"})
        assert kernel.service("fake").runtime == "stopped"


async def test_the_cookie_of_the_link_is_as_good_as_the_token(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, http):
        link = (await http.post("/api/kernel/link", headers=token(kernel))).json()["url"]
        cookie = (await http.get(link)).headers["set-cookie"].split(";")[0]
        async with client(kernel, trusted=False, headers={"Cookie": cookie}) as one:
            assert await ask(one, "sendStartSignal", "fake") == "Running"


async def test_messages_have_a_limit(tmp_path: Path) -> None:
    async with gateway(tmp_path, own={"max_body": 1}) as (kernel, _):
        async with client(kernel) as one:
            await one.send("x" * (2**20 + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await one.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        async with client(kernel) as one:
            await one.send(b"binary")
            with pytest.raises(ConnectionClosed) as closed:
                await one.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        async with client(kernel) as one:
            await one.send("{")
            assert json.loads(await one.recv())["error"]["code"] == -32700
            assert len(await ask(one, "getServices")) == 1


async def test_connections_have_a_limit(tmp_path: Path) -> None:
    async with gateway(tmp_path, own={"max_ipc": 2}) as (kernel, http):
        await http.get("/healthy")
        tasks = len(asyncio.all_tasks())
        async with client(kernel), client(kernel):
            with pytest.raises(InvalidStatus) as refused:
                async with client(kernel):
                    pass
            assert refused.value.response.status_code == 429
            assert (await http.get("/healthy")).status_code == 200
        await eventually(lambda: len(asyncio.all_tasks()) == tasks)
        async with client(kernel) as one:
            assert len(await ask(one, "getServices")) == 1


async def test_stopping_the_gateway_through_itself_answers_first(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (kernel, _), client(kernel) as one:
        assert await ask(one, "sendStopSignal", "ai-backend") == "Stopping"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(one.recv(), PATIENCE)
        await eventually(lambda: kernel.service("ai-backend").runtime == "stopped")


async def test_nothing_is_left_of_a_connection(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, http):
        await http.get("/healthy")
        tasks = len(asyncio.all_tasks())
        async with client(kernel) as one:
            await ask(one, "subscribe")
        await eventually(lambda: len(asyncio.all_tasks()) == tasks)
        with nothing_leaks():
            for _ in range(5):
                async with client(kernel) as one:
                    await ask(one, "subscribe")
                    await one.send(json.dumps(CALL))
            await eventually(lambda: len(asyncio.all_tasks()) == tasks)
        assert kernel._bus._subscribers == []


SLOW, EVENTS = 300, 400


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system hold little of what a client does not read, so that it is soon stuck."""
    made = LimitedWebSocket.connection_made

    def connection_made(self: LimitedWebSocket, transport: asyncio.Transport) -> None:
        own = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(LimitedWebSocket, "connection_made", connection_made)


async def test_silent_readers_slow_nobody(tmp_path: Path, small_buffers: None) -> None:
    """Hundreds of clients that ask for events and never read one; another gets all in order."""
    async with gateway(tmp_path, Fake()) as (kernel, http), AsyncExitStack() as stack:
        port = kernel.service("ai-backend").port
        silent = [await _silent(port) for _ in range(SLOW)]
        for each in silent:
            stack.callback(each.close)
        await eventually(lambda: len(kernel._bus._subscribers) >= SLOW)
        fast = await stack.enter_async_context(client(kernel, max_queue=None))
        await ask(fast, "subscribe", ["webServiceExit"])
        got: list[int] = []

        async def read() -> None:
            while len(got) < EVENTS:
                got.append(json.loads(await fast.recv())["params"]["data"]["code"])

        reader = asyncio.create_task(read())
        text = "x" * 4096  # so much that no buffer of a system holds it all
        for number in range(EVENTS):
            event = WebServiceExit(service="fake", worker="w", exit_code=number, message=text)
            kernel._bus.publish(event)
            # The fast one keeps up event by event; the silent ones have not read any.
            await eventually(lambda n=number: len(got) > n)  # type: ignore[misc]  # bound now
        await asyncio.wait_for(reader, PATIENCE)
        assert got == list(range(EVENTS))
        stuck = [each for each in kernel._bus._subscribers if each._pending or each._resync]
        assert len(stuck) == SLOW
        assert max(len(each._pending) for each in stuck) <= QUEUE
        assert (await http.get("/healthy")).status_code == 200
        async with client(kernel) as late:
            assert await ask(late, "sendStartSignal", "fake") == "Running"


async def _silent(port: int) -> socket.socket:
    """Open a WebSocket, ask for events, and never read them."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    head = (
        b"GET /ipc HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await loop.sock_sendall(sock, head)
    assert b" 101 " in await loop.sock_recv(sock, 4096)
    body = json.dumps({**CALL, "method": "subscribe"}).encode()
    await loop.sock_sendall(sock, bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
    return sock


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    own = {"send_timeout": 0.2}
    async with gateway(tmp_path, Fake(), own=own) as (kernel, _):
        sock = await _silent(kernel.service("ai-backend").port)
        try:
            await eventually(lambda: kernel._bus._subscribers)
            text = "x" * 2**20
            while kernel._bus._subscribers:
                event = WebServiceExit(service="fake", worker="w", exit_code=1, message=text)
                kernel._bus.publish(event)
                await asyncio.sleep(0.02)
        finally:
            sock.close()
