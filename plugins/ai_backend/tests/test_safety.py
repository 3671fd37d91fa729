"""What SECURITY.md promises: one test for each sentence, at least."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.ai_backend.tests.serving import gateway, make_kernel, question, token
from tests.fakes import Fake

from aiplayground import Kernel
from aiplayground.errors import InvalidParameters
from aiplayground_ai_backend import access
from aiplayground_ai_backend.access import Access, Rules

CHAT = "/v1/chat/completions"
STOP = "/api/kernel/services/fake/stop"


def logged(kernel: Kernel) -> str:
    """Return everything that was logged."""
    names = ["kernel", *(each.name for each in kernel.services())]
    return "\n".join(line.text for name in names for line in kernel.log(name).tail())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[",
    ],
)
async def test_a_rebound_host_name_is_refused(tmp_path: Path, host: str) -> None:
    async with gateway(tmp_path, Fake()) as (_, client):
        for path in ("/healthy", "/v1/models", "/openapi.json", "/nothing", "/login?code=x"):
            answer = await client.get(path, headers={"Host": host})
            assert answer.status_code in (400, 403)


async def test_the_names_of_this_computer_and_allowed_ones_are_taken(tmp_path: Path) -> None:
    own = {"allowed_hosts": ["my.box"]}
    async with gateway(tmp_path, Fake(), own=own) as (_, client):
        for host in ("127.0.0.1:1", "localhost", "[::1]:5000", "my.box:80", "LOCALHOST"):
            answer = await client.get("/healthy", headers={"Host": host})
            assert answer.status_code == 200


async def test_a_foreign_origin_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (_, client):
        for origin in (
            "https://evil.example",
            "null",
            "http://127.0.0.1:1",
            "http://localhost:3000",
        ):
            for path in (CHAT, "/api/checkModelAlreadyLoaded"):
                answer = await client.post(path, json=question(), headers={"Origin": origin})
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers
            preflight = await client.options(CHAT, headers={"Origin": origin})
            assert preflight.status_code == 403


async def test_a_page_of_the_gateway_itself_may_ask(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (_, client):
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert (await client.post(CHAT, json=question(), headers=own)).status_code == 200


async def test_an_allowed_origin_gets_cors_and_no_other(tmp_path: Path) -> None:
    page = "https://app.example"
    async with gateway(tmp_path, Fake(), own={"allowed_origins": [page]}) as (_, client):
        asked = {"Origin": page, "Access-Control-Request-Headers": "x-client"}
        preflight = await client.options(CHAT, headers=asked)
        answer = await client.post(CHAT, json=question(), headers={"Origin": page})
        other = await client.post(
            CHAT, json=question(), headers={"Origin": "https://app.example.x"}
        )
        changing = await client.post(STOP, headers={"Origin": page})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "x-client"
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == page
    assert other.status_code == 403
    assert changing.status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_what_a_foreign_page_embeds_is_refused(tmp_path: Path, site: str) -> None:
    async with gateway(tmp_path, Fake()) as (_, client):
        embedded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert (await client.get("/v1/models", headers=embedded)).status_code == 403
        assert (await client.post(CHAT, json=question(), headers=link)).status_code == 403
        assert (await client.get("/healthy", headers=link)).status_code == 200


async def test_asking_needs_no_token_on_loopback_and_changing_does(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, client):
        for path in ("/healthy", "/v1/models", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post(CHAT, json=question())).status_code == 200
        paths = (await client.get("/openapi.json")).json()["paths"]
        guarded = [
            (method, path.replace("{service}", "fake"))
            for path, methods in paths.items()
            for method, operation in methods.items()
            if "security" in operation
        ]
        assert {path for _, path in guarded} >= {STOP, "/api/kernel/events", "/api/kernel/link"}
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {token(kernel)['Authorization'].split()[1]}"},
            {"Cookie": f"aipg-session-{client.base_url.port}=wrong"},
        ]
        for method, path in guarded:
            for headers in wrong:
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        assert kernel.service("fake").runtime == "running"
        assert (await client.post(STOP, headers=token(kernel))).status_code == 200
        assert kernel.service("fake").runtime == "stopped"


async def test_the_files_with_secrets_are_the_user_s_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _):
        runtime = kernel.paths.runtime
        for name in ("token", "serve.json"):
            assert stat.S_IMODE((runtime / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert not (runtime / "token").exists()
    assert not (runtime / "serve.json").exists()


async def test_a_link_logs_one_browser_in_and_only_a_link_does(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, client):
        for path in ("/", "/healthy", "/v1/models", "/login", "/login?code=x", "/openapi.json"):
            assert "set-cookie" not in (await client.get(path)).headers
        link = json.loads((kernel.paths.runtime / "serve.json").read_text())["link"]
        first = await client.get(link)
        cookie = first.headers["set-cookie"]
        assert first.status_code == 303
        assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
        second = await client.get(link)
        assert second.status_code == 403
        assert "set-cookie" not in second.headers
        answer = await client.get("/api/kernel/services")  # httpx sends the cookie now
        assert answer.status_code == 200
        foreign = {"Origin": "http://127.0.0.1:1"}  # same site, so that a browser sends it, too
        assert (await client.post(STOP, headers=foreign)).status_code == 403
        again = await client.post("/api/kernel/link", headers=token(kernel))
        assert again.headers["cache-control"] == "no-store"
        assert (await client.get(again.json()["url"])).status_code == 303


async def test_beyond_loopback_everything_needs_the_api_key(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake(), own={"host": "0.0.0.0"}) as (kernel, client):
        file = kernel.paths.state / "secrets" / "api-key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        key = file.read_text().strip()
        paths = (await client.get("/openapi.json", headers={"X-Api-Key": key})).json()["paths"]
        for path, methods in [*paths.items(), ("/nothing", {"get": {}})]:
            for method in methods:
                answer = await client.request(method, path)
                assert answer.status_code == 401, (method, path)
        bearer = {"Authorization": f"Bearer {key}"}
        assert (await client.post(CHAT, json=question(), headers=bearer)).status_code == 200
        # The key is for asking: what changes something still needs the token.
        assert (await client.post(STOP, headers=bearer)).status_code == 401
        assert (await client.post(STOP, headers=token(kernel))).status_code == 200
        assert key not in logged(kernel)
    async with gateway(tmp_path, Fake(), own={"host": "0.0.0.0"}) as (kernel, _):
        assert file.read_text().strip() == key  # it stays the same


async def test_no_secret_in_logs_errors_and_events(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, client):
        secret = token(kernel)["Authorization"].split()[1]
        link = json.loads((kernel.paths.runtime / "serve.json").read_text())["link"]
        code = link.partition("code=")[2]
        answers = [
            await client.get(f"/login?code={code}"),
            await client.get("/api/kernel/services", headers=token(kernel)),
            await client.post(STOP, headers={"Authorization": f"Bearer x{secret}"}),
            await client.get(f"/{secret}x", headers=token(kernel)),
            await client.get("/api/kernel/services/ai-backend/log", headers=token(kernel)),
        ]
        session = answers[0].headers["set-cookie"].partition("=")[2].partition(";")[0]
        texts = [
            answers[1].text,
            answers[2].text,
            answers[4].text,
            (await client.get("/metrics")).text,
        ]
        everything = "\n".join([logged(kernel), *texts])
        for hidden in (secret, code, session):
            assert hidden not in everything


async def raw(client: httpx.AsyncClient, *pieces: bytes, pause: float = 0) -> bytes:
    """Send bytes as they are, and return what comes until the other end closes."""
    port = client.base_url.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_model_files_by_path_need_the_token(tmp_path: Path) -> None:
    file = tmp_path / "outside.gguf"
    file.write_bytes(b"x")
    names = [str(file), f"ai-backend/{file}", "../outside.gguf", "~/x.gguf", "fake/../x.GGUF"]
    async with gateway(tmp_path / "home", Fake()) as (kernel, client):
        for name in names:
            for path in (CHAT, "/v1/responses", "/v1/messages"):
                body = question(name, input="x", max_tokens=1)
                answer = await client.post(path, json=body)
                assert answer.status_code in (400, 401)
                assert answer.json()["code"] == -4
            assert (await client.get(f"/v1/models/{name.lstrip('/')}")).status_code in (401, 404)
        trusted = await client.post(CHAT, json=question(str(file)), headers=token(kernel))
        assert trusted.json()["code"] == -5  # the file was looked at: it is no model
        assert (await client.post(CHAT, json=question("m.gguf"))).status_code == 200


async def test_slow_and_large_headers_are_cut_off(tmp_path: Path) -> None:
    own = {"header_timeout": 0.3, "max_headers": 2}
    head = b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n"
    async with gateway(tmp_path, own=own) as (_, client):
        slow, silent, large, endless, fine = await asyncio.gather(
            raw(client, head, b"X: ", b"1", pause=0.2),
            raw(client),
            raw(client, head + b"X: " + b"a" * 4096 + b"\r\n\r\n"),
            raw(client, head + b"X: " + b"a" * 4096),
            client.get("/healthy"),
        )
    assert slow.startswith(b"HTTP/1.1 408 ")
    assert silent.startswith(b"HTTP/1.1 408 ")
    assert large.startswith(b"HTTP/1.1 431 ")
    assert endless.startswith(b"HTTP/1.1 431 ")
    assert json.loads(large.partition(b"\r\n\r\n")[2])["code"] == -4
    assert fine.status_code == 200


async def test_slow_and_large_bodies_are_cut_off(tmp_path: Path) -> None:
    own = {"body_timeout": 0.3, "max_body": 1}
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    async with gateway(tmp_path, Fake(), own=own) as (_, client):
        slow, told, chunked, fine = await asyncio.gather(
            raw(client, head + b"Content-Length: 100\r\n\r\n{"),
            raw(client, head + b"Content-Length: 1048577\r\n\r\n" + b"a" * 1048577),
            raw(
                client,
                head
                + b"Transfer-Encoding: chunked\r\n\r\n"
                + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 20,
                b"0\r\n\r\n",
            ),
            client.post(CHAT, json=question()),
        )
    assert slow.startswith(b"HTTP/1.1 408 ")
    assert told.startswith(b"HTTP/1.1 413 ")
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert fine.status_code == 200


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    fake = Fake(words=["x" * 100_000] * 200)
    fake.answering = asyncio.Event()
    body = json.dumps(question(stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    async with gateway(tmp_path, fake, own={"send_timeout": 0.3}) as (_, client):
        port = client.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(head.encode() + body)
        async with asyncio.timeout(20):
            while not fake.closed:
                await asyncio.sleep(0.02)
        writer.close()
        del reader


async def test_connections_are_limited(tmp_path: Path) -> None:
    async with gateway(tmp_path, own={"max_connections": 2}) as (_, client):
        opened = [await asyncio.open_connection("127.0.0.1", client.base_url.port) for _ in "12"]
        answer = await raw(client, b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _, writer in opened:
            writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")


async def test_bytes_that_are_no_http_harm_nobody(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, client):
        answer = await raw(client, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert (await client.get("/healthy")).status_code == 200


async def test_bodies_that_are_no_request_are_refused_with_a_reason(tmp_path: Path) -> None:
    bodies: list[Any] = [b"", b"[", b"[]", b"null", b'"x"', b"\xff", b'{"model": NaN}']
    bodies += [b'{"model": 1}', b"[" * 500, b'{"model": "m", "messages": "x"}']
    bodies += [b'{"model": "m", "messages": [], "stream": 1}', b'{"model": "\\ud800"}']
    async with gateway(tmp_path, Fake()) as (_, client):
        paths = (await client.get("/openapi.json")).json()["paths"]
        for path, methods in paths.items():
            if "post" in methods and not path.startswith("/api/kernel"):
                for body in bodies:
                    answer = await client.post(path, content=body)
                    assert 400 <= answer.status_code < 500 or answer.json()["code"] == -3
                    assert answer.json()["message"]


async def test_a_second_gateway_is_told_who_holds_the_home(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()):
        with pytest.raises(Exception, match=r"already runs with this home \(process \d+\)"):
            await make_kernel(tmp_path, exclusive=True).open()


async def test_stopping_the_gateway_through_its_own_door_answers_first(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, client):
        answer = await client.post("/api/kernel/services/ai-backend/stop", headers=token(kernel))
        assert answer.json()["currentStatus"] == "Stopping"
        async with asyncio.timeout(20):
            while kernel.service("ai-backend").runtime != "stopped":
                await asyncio.sleep(0.02)
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthy")


async def test_those_who_look_on_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, client):
        paths = ("/api/kernel/events", "/api/kernel/services/fake/log?follow=1")
        kernel.log("fake").line("engine", "begun")
        async with AsyncExitStack() as stack:
            streams = []
            for path in paths:
                asked = client.stream("GET", path, headers=token(kernel))
                lines = (await stack.enter_async_context(asked)).aiter_lines()
                await anext(lines)
                streams.append(lines)
            # Without a limit of its own: the streams end, and it has nothing to wait for.
            stopping = asyncio.create_task(kernel.stop("ai-backend"))
            async with asyncio.timeout(20):
                for lines in streams:
                    assert [line async for line in lines][-1] == ""
                await stopping


@contextmanager
def refused(reason: str) -> Iterator[None]:
    with pytest.raises(InvalidParameters) as error:
        yield
    assert error.value.details["reason"] == reason


def test_who_may_ask_what() -> None:
    local, remote = Rules(token="t" * 40), Rules(token="t" * 40, api_key="k" * 40)
    bearer = {"authorization": "bearer " + "t" * 40}
    access.check_access(Access.OPEN, {}, local, ())
    access.check_access(Access.CONTROL, bearer, local, ())
    access.check_access(Access.CONTROL, {"cookie": "a=b; aipg-session=s"}, local, {"s"})
    access.check_access(Access.OPEN, {"x-api-key": "k" * 40}, remote, ())
    access.check_access(Access.CONTROL, bearer, remote, ())
    for headers in (
        {},
        {"authorization": "bearer"},
        {"cookie": "aipg-session=x"},
        {"cookie": "é\0"},
    ):
        with refused("unauthorized"):
            access.check_access(Access.CONTROL, headers, local, {"s"})
        with refused("unauthorized"):
            access.check_access(Access.OPEN, headers, remote, {"s"})
    with refused("unauthorized"):
        access.check_access(Access.CONTROL, {"authorization": "bearer é"}, local, {"s"})


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("", False),
        ("example.org", False),
    ],
)
def test_what_can_be_reached_from_this_computer_alone(host: str, local: bool) -> None:
    assert access.is_loopback(host) is local


def test_each_sentence_of_the_page_has_its_test() -> None:
    page = (Path(__file__).parents[3] / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    assert named
    root = Path(__file__).parents[3]
    unit = [root / "tests/unit" / name for name in ("test_files.py", "test_secrets.py")]
    serve = root / "tests/integration/test_cli_serve.py"
    downloads = (root / "plugins/models/tests").glob("test_*.py")
    files = [*Path(__file__).parent.glob("test_*.py"), *unit, *downloads, serve]
    defined = {
        name
        for file in files
        for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))
    }
    assert [name for name in named if name not in defined] == []
