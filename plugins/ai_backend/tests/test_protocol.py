"""Connections of the gateway, byte by byte."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from plugins.ai_backend.tests.serving import gateway, question
from tests.fakes import Fake, eventually

from aiplayground_ai_backend import server

CHAT = "/v1/chat/completions"
GET = b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"
WHOLE = b'{"status":"ok","version":"3.0.0"}'


def post(**more: str) -> bytes:
    body = json.dumps(question(**more)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def opened(client: httpx.AsyncClient) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", client.base_url.port)


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE", 1.0)
    fake = Fake()
    fake.answering = asyncio.Event()
    async with gateway(tmp_path, fake) as (_, client), asyncio.timeout(20):
        reader, writer = await opened(client)
        writer.write(GET)
        await reader.readuntil(WHOLE)
        writer.write(post())
        await eventually(lambda: "chat m" in fake.calls)
        await asyncio.sleep(1.2)  # more than an idle one would be given
        fake.answering.set()
        answer = await reader.read()  # to the end: it was closed, after the answer
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"content":"abc"' in answer


async def test_requests_that_come_together_are_answered_in_turn(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (_, client), asyncio.timeout(20):
        reader, writer = await opened(client)
        writer.write(GET + post() + GET)
        for expected in (WHOLE, b'"content":"abc"', WHOLE):
            await reader.readuntil(expected)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [post(), post(user="x" * 100_000), post(user="x" * 1_000_000), post() + GET],
    ids=["little", "much", "more", "another"],
)
async def test_a_client_that_leaves_is_noticed_whatever_it_has_sent(
    tmp_path: Path, sent: bytes
) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    async with gateway(tmp_path, fake) as (_, client), asyncio.timeout(20):
        _, writer = await opened(client)
        writer.write(sent)
        await eventually(lambda: "chat m" in fake.calls)
        writer.close()
        await eventually(lambda: fake.closed)


async def test_a_body_may_come_in_pieces(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (_, client), asyncio.timeout(20):
        reader, writer = await opened(client)
        whole = post()
        for piece in (whole[:-30], whole[-30:-2], whole[-2:]):
            writer.write(piece)
            await asyncio.sleep(0.02)
        await reader.readuntil(b'"content":"abc"')
        writer.close()


async def test_a_client_that_waits_for_leave_to_send_gets_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (_, client), asyncio.timeout(20):
        reader, writer = await opened(client)
        head, _, body = post().partition(b"\r\n\r\n")
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        await reader.readuntil(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(body)
        await reader.readuntil(b'"content":"abc"')
        writer.close()
