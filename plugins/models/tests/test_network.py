"""The Hub behind TLS of a company's own authority, and behind a proxy: settings and failures."""

from __future__ import annotations

import os
import random
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from plugins.models.tests.test_downloads import kernel_at
from tests.hub_server import TOKEN, HubServer, Repository
from tests.proxy_server import ProxyServer

from aiplayground.errors import ServiceNotAvailable
from aiplayground.paths import Paths
from aiplayground.secrets import HF_TOKEN, Secrets

MODEL = random.Random(3).randbytes(700_000)
REPO, FILE = "owner/model-GGUF", "model-Q4_K_M.gguf"
USER = "clerk:s3cretword"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*(each for each in os.environ if each.lower().endswith("_proxy")), "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def hub(authority: trustme.CA) -> Iterator[HubServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with HubServer({REPO: Repository({FILE: MODEL}, gated=True)}, tls=tls) as server:
        yield server


def with_user(proxy: ProxyServer, user: str) -> str:
    return proxy.url.replace("://", f"://{user}@")


async def download(home: Path, hub: HubServer, **settings: Any) -> Path:
    """Download with the kernel and its fetcher process; the token is there from the start."""
    Secrets(Paths.resolve(home), {}).set(HF_TOKEN, TOKEN)
    async with kernel_at(home, hub, **{"retries": 1, **settings}) as kernel:
        await kernel.call("downloadModel", {"repo": REPO})
        (found,) = kernel.model_paths.root.rglob(FILE)
        return found


async def test_over_tls_of_an_authority_of_ones_own_and_a_proxy(
    tmp_path: Path, hub: HubServer, ca_bundle: Path
) -> None:
    hub.faults.redirect = True
    with ProxyServer(USER) as proxy:
        settings = {"ca_bundle": str(ca_bundle), "proxy": with_user(proxy, USER)}
        found = await download(tmp_path / "home", hub, **settings)
        assert found.read_bytes() == MODEL
        hosts = {f"127.0.0.1:{urlsplit(url).port}" for url in (hub.url, hub.cdn_url)}
        assert {(each.method, each.target) for each in proxy.seen} == {
            ("CONNECT", host) for host in hosts
        }
        assert not any(TOKEN in str(each.headers) for each in proxy.seen)
    assert hub.seen
    assert not any("authorization" in each.headers for each in hub.seen if each.cdn)
    assert not any("proxy-authorization" in each.headers for each in hub.seen)


async def test_without_tls_the_proxy_is_asked_for_whole_addresses(tmp_path: Path) -> None:
    with HubServer({REPO: Repository({FILE: MODEL})}) as hub, ProxyServer() as proxy:
        found = await download(tmp_path, hub, proxy=proxy.url)
        assert found.read_bytes() == MODEL
        assert len(proxy.seen) == len(hub.seen)
        assert all(each.target.startswith(hub.url) for each in proxy.seen)


async def test_an_authority_that_is_not_trusted_is_said_at_once(
    tmp_path: Path, hub: HubServer
) -> None:
    with pytest.raises(ServiceNotAvailable, match=r"hub\.ca_bundle") as failed:
        await download(tmp_path, hub, retries=1000, retry_wait=60)
    assert failed.value.details["reason"] == "certificate"
    assert hub.seen == []


@pytest.mark.parametrize("tls", [True, False])
async def test_a_proxy_that_wants_another_password_is_said_at_once(
    tmp_path: Path, hub: HubServer, ca_bundle: Path, tls: bool
) -> None:
    settings: dict[str, Any] = {"ca_bundle": str(ca_bundle), "retries": 1000, "retry_wait": 60}
    with HubServer({REPO: Repository({FILE: MODEL})}) as plain, ProxyServer(USER) as proxy:
        settings["proxy"] = with_user(proxy, "clerk:wr0ngword")
        with pytest.raises(ServiceNotAvailable, match=r"hub\.proxy") as failed:
            await download(tmp_path / "home", hub if tls else plain, **settings)
    assert failed.value.details["reason"] == "proxy"
    assert "wr0ngword" not in str(failed.value.to_dict())


async def test_a_proxy_that_is_not_there(tmp_path: Path, hub: HubServer, ca_bundle: Path) -> None:
    with ProxyServer() as gone:
        address = with_user(gone, USER)
    with pytest.raises(ServiceNotAvailable, match=r"hub\.proxy") as failed:
        await download(tmp_path / "home", hub, proxy=address, ca_bundle=str(ca_bundle))
    assert failed.value.details["reason"] == "unreachable"
    assert "s3cretword" not in str(failed.value.to_dict())


def test_the_token_is_tested_the_same_way(
    tmp_path: Path, hub: HubServer, ca_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProxyServer() as proxy:
        given = {"ENDPOINT": hub.url, "CA_BUNDLE": str(ca_bundle), "PROXY": proxy.url}
        for name, value in given.items():
            monkeypatch.setenv(f"AIPG_HUB__{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        command = [sys.executable, "-m", "aiplayground.cli", "--home", str(tmp_path / "home")]
        done = subprocess.run(
            [*command, "config", "hf-token", "--test"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert "as that of tester" in done.stdout
        # And nobody else is asked, huggingface.co included.
        host = f"127.0.0.1:{urlsplit(hub.url).port}"
        assert [(each.method, each.target) for each in proxy.seen] == [("CONNECT", host)]
