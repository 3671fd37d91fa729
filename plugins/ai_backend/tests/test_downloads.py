"""Downloads over the gateway's doors: server-sent events, and `window.electronAPI` in a browser."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes import eventually
from tests.hub_server import HubServer, Repository

from aiplayground import Kernel
from aiplayground_models import plugin as models

from .browser import Raised, browser, needs_browser
from .serving import gateway, token

MODEL = random.Random(3).randbytes(1_000_000)
REPO = "mistralai/Mistral-7B-Instruct-v0.3"
DATA = {
    "repo": REPO,
    "filename": "model.safetensors",
    "type": "llm",
    "destination": "llm/mistral-7b",
}
"""The body of the API reference's example."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer({REPO: Repository({"model.safetensors": MODEL})}) as server:
        monkeypatch.setenv("AIPG_HUB__ENDPOINT", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = [each for each in text.split("\n\n") if each.startswith("data: ")]
    return [json.loads(each.removeprefix("data: ")) for each in blocks]


def stalled(kernel: Kernel) -> bool:
    return any((kernel.model_paths.root / ".downloads").glob("*.part"))


async def test_the_documented_stream(tmp_path: Path, hub: HubServer) -> None:
    async with gateway(tmp_path, models) as (kernel, client):
        hub.faults.slow = 0.1
        refused = await client.post("/api/downloadModel", json={"data": DATA})
        answer = await client.post(
            "/api/downloadModel", json={"data": DATA}, headers=token(kernel), timeout=30
        )
        place = kernel.model_paths.root / "llm/mistral-7b/model.safetensors"
        assert place.read_bytes() == MODEL
        # Its reader has gone, which cancels what is not complete.
        (state,) = await kernel.call("listDownloads")
        assert (state["status"], state.get("error")) == ("complete", None)
        method = await client.get("/api/downloadModel", headers=token(kernel))
    assert refused.status_code == 401
    assert method.status_code == 405
    assert "POST" in method.json()["message"]
    assert answer.headers["content-type"].startswith("text/event-stream")
    *moving, last = events_of(answer.text)
    assert last["status"] == "complete"
    assert last["path"] == str(place)
    downloading = [each for each in moving if each["status"] == "downloading"]
    # The first of them may know no speed yet.
    assert any(
        0 < each["progress"] < 100 and "B/s" in each.get("speed", "") for each in downloading
    )
    assert len({each["id"] for each in [*moving, last]}) == 1


async def test_errors_are_events_and_bad_requests_are_400(tmp_path: Path, hub: HubServer) -> None:
    async with gateway(tmp_path, models) as (kernel, client):
        path, headers = "/api/downloadModel", token(kernel)
        missing = {"data": {**DATA, "filename": "gone.bin"}}
        answer = await client.post(path, json=missing, headers=headers, timeout=30)
        bad = [
            await client.post(path, content=body, headers=headers)
            for body in (b"[]", b"{", b'{"data": {}}', b'{"data": {"repo": "x"}}')
        ]
    *_, last = events_of(answer.text)
    assert (last["status"], last["code"]) == ("error", -2)
    assert "model.safetensors" in last["message"]
    assert [each.status_code for each in bad] == [400] * 4
    assert [each.json()["code"] for each in bad] == [-4] * 4


async def test_cancelled_is_an_event_and_closing_the_stream_cancels(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.faults.stall_at.extend([1000, 500_000])
    async with gateway(tmp_path, models) as (kernel, client):
        ask = client.post("/api/downloadModel", json={"data": DATA}, headers=token(kernel))
        answer = asyncio.create_task(ask)
        await eventually(lambda: stalled(kernel))
        (state,) = await kernel.call("listDownloads")
        await kernel.call("cancelDownload", state["id"])
        *_, last = events_of((await answer).text)
        assert last["status"] == "cancelled"
        await _closed_early(client, kernel)

        async def status() -> str:
            return str((await kernel.call("listDownloads"))[-1]["status"])

        async with asyncio.timeout(10):
            while await status() != "cancelled":
                await asyncio.sleep(0.01)


async def _closed_early(client: httpx.AsyncClient, kernel: Kernel) -> None:
    async with client.stream(
        "POST", "/api/downloadModel", json={"data": DATA}, headers=token(kernel)
    ) as stream:
        async for line in stream.aiter_lines():
            if '"downloading"' in line:
                return


@needs_browser
async def test_a_download_in_a_page(tmp_path: Path, hub: HubServer) -> None:
    async with (
        gateway(tmp_path, models) as (kernel, _),
        browser(tmp_path / "profile") as new,
        new() as page,
    ):
        told = json.loads((kernel.paths.runtime / "serve.json").read_text())
        await page.open(told["link"])
        done = await page.run(
            f"""window.seen = []
            window.electronAPI.onModelDownloadProgress((progress) => seen.push(progress))
            return (await window.electronAPI.downloadModel({json.dumps(DATA)})) === undefined"""
        )
        assert done is True
        assert (kernel.model_paths.root / "llm/mistral-7b/model.safetensors").read_bytes() == MODEL
        last = await page.until("seen.at(-1)?.status === 'complete' && seen.at(-1)")
        assert (last["filename"], last["progress"]) == ("model.safetensors", 100)
        with pytest.raises(Raised) as refused:
            await page.run("await electronAPI.downloadModel({ repo: 'o/none' })")
        assert refused.value.value["code"] == -2
        listed = await page.run("return await electronAPI.listDownloads()")
        assert [each["status"] for each in listed] == ["complete", "error"]
        assert page.problems == []
