"""One request on a connection of the gateway's, and what is written for its answer."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from aiplayground_ai_backend.cycle import HELD, Cycle

JSON = (b"content-type", b"application/json")
OK = b"HTTP/1.1 200 OK\r\n"


class Wire:
    """A transport that notes what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def cycle(method: str = "POST", *, keep_alive: bool = True) -> tuple[Any, Wire]:
    wire: Any = Wire()
    connection: Any = SimpleNamespace(
        scope={"method": method},
        transport=wire,
        flow=FlowControl(wire),
        logger=logging.getLogger("test"),
        on_response_complete=lambda: None,
        expect_100_continue=False,
        watchers=set(),
    )
    return Cycle(connection, keep_alive=keep_alive), wire


def head(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("held", [True, False])
async def test_a_head_goes_out_with_its_body(held: bool) -> None:
    one, wire = cycle()
    await one.send(head(JSON, (b"Content-Length", b"2")) | ({HELD: True} if held else {}))
    await one.send(body(b"{}"))
    await asyncio.sleep(0)
    expected = OK + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    assert wire.writes == [expected]
    assert not wire.closed


async def test_a_head_that_no_body_follows_goes_out_alone() -> None:
    one, wire = cycle()
    await one.send(head())
    assert not wire.writes
    await asyncio.sleep(0)
    assert wire.writes == [OK + b"transfer-encoding: chunked\r\n\r\n"]
    await one.send(body(b"12", more=True))
    await one.send(body(b""))
    assert wire.writes[1:] == [b"2\r\n12\r\n", b"0\r\n\r\n"]


async def test_a_large_body_is_not_copied() -> None:
    one, wire = cycle()
    await one.send(head((b"content-length", b"100000")))
    await one.send(body(b"x" * 100_000))
    assert [len(each) for each in wire.writes] == [len(OK) + 26, 100_000]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_what_has_no_body_is_not_framed(method: str, status: int) -> None:
    one, wire = cycle(method)
    await one.send(head(status=status))
    await one.send(body(b""))
    assert wire.writes[0].endswith(b"\r\n\r\n")
    assert b"chunked" not in wire.writes[0]
    assert one.response_complete


@pytest.mark.parametrize("value", [None, b"Close", b"keep-alive"])
async def test_a_connection_that_is_not_kept_says_so(value: bytes | None) -> None:
    headers = [] if value is None else [(b"connection", value)]
    one, wire = cycle(keep_alive=value == b"Close")
    await one.send(head((b"content-length", b"0"), *headers))
    await one.send(body(b""))
    assert wire.closed
    assert wire.writes[0].lower().count(b"connection: close\r\n") == 1


async def test_an_answer_of_another_length_than_it_says_is_an_error() -> None:
    one, _ = cycle()
    await one.send(head((b"content-length", b"2")))
    with pytest.raises(RuntimeError, match="longer"):
        await one.send(body(b"123"))
    one, _ = cycle()
    await one.send(head((b"content-length", b"2")))
    with pytest.raises(RuntimeError, match="shorter"):
        await one.send(body(b"1"))


@pytest.mark.parametrize("header", [(b"a b", b"x"), (b"a", b"x\r\ny: z"), (b"a", b"\x00")])
async def test_what_is_no_header_is_not_sent(header: tuple[bytes, bytes]) -> None:
    one, wire = cycle()
    with pytest.raises(RuntimeError, match="no HTTP header"):
        await one.send(head(header))
    assert not wire.writes


async def test_messages_out_of_turn_are_errors() -> None:
    one, _ = cycle()
    with pytest.raises(RuntimeError, match=r"http\.response\.body"):
        await one.send(body(b""))
    await one.send(head((b"content-length", b"0")))
    with pytest.raises(RuntimeError, match=r"http\.response\.start"):
        await one.send(head())


async def test_a_body_comes_whole_or_in_pieces() -> None:
    one, _ = cycle()
    assert one.whole_body(10) is None
    reading = asyncio.ensure_future(one.receive())
    await asyncio.sleep(0)
    one.body += b"12"
    one.set()
    assert await reading == {"type": "http.request", "body": b"12", "more_body": True}
    one.body += b"34"
    one.more_body = False
    one.set()
    assert one.whole_body(1) is None  # too long, and left where it was
    assert one.whole_body(2) == b"34"
    assert one.whole_body(2) is None


async def test_who_watches_is_told_of_a_client_that_had_gone() -> None:
    one, _ = cycle()
    told: list[int] = []
    one.watch(lambda: told.append(1))
    one.disconnected = True
    assert await one.receive() == {"type": "http.disconnect"}
    await one.send(head())
    one.watch(lambda: told.append(2))
    assert not told
    await asyncio.sleep(0)
    assert told == [2]
