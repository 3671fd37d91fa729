"""Attached endpoints over HTTPS, and those that redirect: the key stays with its own server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from tests.endpoints import attach
from tests.fakes import kernel

from aiplayground.errors import ServiceFailed

KEY = "sk-a-key-that-nobody-else-may-see"
MODELS = b'{"data": [{"id": "m"}]}'
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS)


def redirect(where: str) -> bytes:
    head = f"HTTP/1.1 307 Away\r\nLocation: {where}\r\nConnection: close\r\n"
    return (head + "Content-Length: 0\r\n\r\n").encode()


class Listener:
    """Answers every request as told, and keeps their heads."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.heads: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.answers.get(head.split()[1], OK))
        writer.close()


@asynccontextmanager
async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=context)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


async def test_https_with_an_authority_of_ones_own(
    tmp_path: Path, tls: ssl.SSLContext, ca_file: Path
) -> None:
    async with listening(tls) as there:
        settings = attach(f"https://127.0.0.1:{there.port}/v1", ca_file=ca_file, api_key=KEY)
        async with kernel(tmp_path, settings=settings) as k:
            info = await k.start("far")
            assert (info.status, info.base_url) == ("Running", f"https://127.0.0.1:{there.port}")
            assert f"Authorization: Bearer {KEY}" in there.heads[0]


async def test_a_certificate_that_is_not_trusted_is_refused_and_explained(
    tmp_path: Path, tls: ssl.SSLContext
) -> None:
    async with listening(tls) as there:
        settings = attach(f"https://127.0.0.1:{there.port}", api_key=KEY)
        async with kernel(tmp_path, settings=settings) as k:
            with pytest.raises(ServiceFailed, match=r"not trusted .*Name the file.*`ca_file`"):
                await k.start("far")
        assert there.heads == [], "nothing was said to it"


async def test_the_check_can_be_turned_off(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with listening(tls) as there:
        settings = attach(f"https://127.0.0.1:{there.port}", verify=False)
        async with kernel(tmp_path, settings=settings) as k:
            assert (await k.start("far")).status == "Running"


async def test_a_server_may_ask_for_our_certificate(
    tmp_path: Path, authority: trustme.CA, tls: ssl.SSLContext, ca_file: Path
) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    own = tmp_path / "client.pem"
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(own)
    async with listening(tls) as there:
        url = f"https://127.0.0.1:{there.port}"
        settings = attach(url, ca_file=ca_file, client_cert=own)
        async with kernel(tmp_path, settings=settings) as k:
            assert (await k.start("far")).status == "Running"
        async with kernel(tmp_path, settings=attach(url, ca_file=ca_file)) as k:
            with pytest.raises(ServiceFailed, match=r"cannot be reached|broke the connection"):
                await k.start("far")


@pytest.mark.parametrize("text", [None, "no certificate at all"])
async def test_a_certificate_file_that_cannot_be_used_is_named(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    settings = attach("https://127.0.0.1:1", ca_file=file)
    async with kernel(tmp_path, settings=settings) as k:
        info = k.service("far")
        assert info.error is not None
        assert "certificate file cannot be used" in info.error["message"]
        assert str(file) in info.error["message"]


async def test_a_redirect_to_another_server_is_not_followed(tmp_path: Path) -> None:
    async with listening() as there, listening() as elsewhere:
        for number, host in enumerate(("127.0.0.1", "localhost")):
            target = f"http://{host}:{elsewhere.port}/v1/models"
            there.answers["/v1/models"] = redirect(target)
            settings = attach(f"http://127.0.0.1:{there.port}", api_key=KEY)
            async with kernel(tmp_path, settings=settings) as k:
                with pytest.raises(ServiceFailed, match=f"redirects to {target}, which is another"):
                    await k.start("far")
            assert len(there.heads) == number + 1
        assert elsewhere.heads == []


async def test_a_redirect_within_the_server_is_followed(tmp_path: Path) -> None:
    async with listening() as there:
        there.answers["/v1/models"] = redirect("/other/models")
        settings = attach(f"http://127.0.0.1:{there.port}", api_key=KEY)
        async with kernel(tmp_path, settings=settings) as k:
            assert (await k.start("far")).status == "Running"
        assert [head.split()[1] for head in there.heads] == ["/v1/models", "/other/models"]
        assert all(KEY in head for head in there.heads)
