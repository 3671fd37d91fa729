"""Downloads of a kernel: each in a process of its own, with events, joined, cancelled, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.fakes import eventually
from tests.hub_server import TOKEN, HubServer, Repository

from aiplayground import Kernel
from aiplayground.api import ModelDownloadInfo
from aiplayground.errors import (
    AIPlaygroundError,
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    ServiceNotAvailable,
)
from aiplayground.events import ModelDownloadProgress
from aiplayground_models import plugin
from aiplayground_models.download import DownloadCancelled, Status
from aiplayground_models.manager import DownloadManager
from aiplayground_models.place import HIDDEN

MODEL = random.Random(2).randbytes(2_000_000)
REPO = "owner/model-GGUF"
FILE = "model-Q4_K_M.gguf"
ASKED = {"repo": REPO, "filename": FILE, "destination": "llm/mine", "type": "llm"}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({REPO: Repository({FILE: MODEL, "other.bin": b"x" * 1000})}) as server:
        yield server


@asynccontextmanager
async def kernel_at(home: Path, hub: HubServer, **settings: Any) -> AsyncIterator[Kernel]:
    """Open a kernel whose Hub is a test's."""
    given = {"endpoint": hub.url, "retry_wait": 0.01, "timeout": 20, "patience": 5, **settings}
    plugins = {"models": plugin}
    async with Kernel(home=home, plugins=plugins, discover=False, settings={"hub": given}) as one:
        yield one


def partials(kernel: Kernel) -> list[Path]:
    return list((kernel.model_paths.root / HIDDEN).glob("*.part"))


def fetchers() -> list[psutil.Process]:
    """Return the processes that download for this one."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if any("aiplayground_models.fetcher" in part for part in each.cmdline()):
                found.append(each)
    return found


async def stalled(kernel: Kernel, size: int) -> None:
    """Wait until a download has got so far."""
    await eventually(lambda: any(each.stat().st_size >= size for each in partials(kernel)))


async def test_a_download_and_its_events(tmp_path: Path, hub: HubServer) -> None:
    async with kernel_at(tmp_path, hub) as kernel:
        async with kernel.subscribe(ModelDownloadProgress, snapshot=False) as events:
            assert await kernel.call("downloadModel", ASKED) is None
            told = []
            async for event in events:
                assert isinstance(event, ModelDownloadProgress)
                told.append(event)
                if event.status == "complete":
                    break
        assert (tmp_path / "models/llm/mine" / FILE).read_bytes() == MODEL
        (state,) = await kernel.call("listDownloads")
    assert (told[-1].progress, told[-1].filename, told[-1].repo) == (100, FILE, REPO)
    assert told[-1].downloaded == told[-1].total == len(MODEL)
    assert {each.id for each in told} == {state["id"]}
    assert state["path"] == str(tmp_path / "models/llm/mine" / FILE)
    assert fetchers() == []


async def test_several_at_once_and_the_same_one_joined(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.stall_at.append(1000)
    async with kernel_at(tmp_path, hub) as kernel:
        first = asyncio.create_task(kernel.call("downloadModel", ASKED))
        await stalled(kernel, 1000)
        second = asyncio.create_task(kernel.call("downloadModel", ASKED))
        await kernel.call("downloadModel", {"repo": REPO, "filename": "other.bin"})
        assert (tmp_path / f"models/llm/{REPO}/other.bin").is_file()
        assert not first.done()
        hub.release.set()
        await asyncio.gather(first, second)
        listed = await kernel.call("listDownloads")
    assert [each["status"] for each in listed] == ["complete", "complete"]
    assert len({each["id"] for each in listed}) == 2
    assert len(hub.bodies()) == 2


async def test_cancel_is_prompt_and_the_next_one_goes_on(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.stall_at.append(700_000)
    async with kernel_at(tmp_path, hub) as kernel:
        waiting = asyncio.create_task(kernel.call("downloadModel", ASKED))
        await stalled(kernel, 700_000)
        (state,) = await kernel.call("listDownloads")
        ended = await kernel.call("cancelDownload", state["id"])
        assert ended["status"] == "cancelled"
        assert fetchers() == []
        with pytest.raises(DownloadCancelled, match="What came is kept"):
            await waiting
        assert await kernel.call("cancelDownload", state["id"]) == ended
        await kernel.call("downloadModel", ASKED)
    assert (tmp_path / "models/llm/mine" / FILE).read_bytes() == MODEL
    assert hub.bodies()[-1].headers["range"] == "bytes=700000-"


@pytest.mark.full
async def test_what_is_complete_stays_so_while_its_process_ends(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of a stream goes as soon as it has read the last event."""
    ended = asyncio.Event()

    async def messages(*_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"event": "done", "path": "/m/x.gguf", "files": ["/m/x.gguf"]}
        await ended.wait()

    monkeypatch.setattr("aiplayground_models.manager.messages", messages)
    async with kernel_at(tmp_path, hub) as kernel:
        manager = kernel.part(DownloadManager)
        download = manager.start(ModelDownloadInfo(repo=REPO), keep=False)
        seen = [info.status async for info in download.follow()]
        manager.drop(download)
        assert (await manager.cancel(download.id)).status is seen[-1] is Status.COMPLETE
        assert download.task is not None
        assert not download.task.done()
        ended.set()
        await download.task
        # A kernel that closes ends the process; that changes nothing either.
        ended.clear()
        other = manager.start(ModelDownloadInfo(repo=REPO, filename="x"), keep=False)
        await manager.wait(other)
        assert other.task is not None
        other.task.cancel()
        await asyncio.wait([other.task])
        assert other.info.status is Status.COMPLETE


async def test_a_killed_fetcher_is_told_and_resumed(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.stall_at.append(700_000)
    async with kernel_at(tmp_path, hub) as kernel:
        waiting = asyncio.create_task(kernel.call("downloadModel", ASKED))
        await stalled(kernel, 700_000)
        fetchers()[0].kill()
        with pytest.raises(ServiceNotAvailable, match=r"exit code -9.*is kept"):
            await waiting
        assert not (tmp_path / "models/llm").exists()
        await kernel.call("downloadModel", ASKED)
    assert (tmp_path / "models/llm/mine" / FILE).read_bytes() == MODEL
    assert hub.bodies()[-1].headers["range"] == "bytes=700000-"


KILLED = """
import asyncio, sys
from aiplayground import Kernel
async def main():
    async with Kernel(home=sys.argv[1], settings={"hub": {"endpoint": sys.argv[2]}}) as kernel:
        await kernel.call("downloadModel", {"repo": sys.argv[3], "destination": "llm/mine"})
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_a_killed_kernel_leaves_no_fetcher_and_what_can_be_resumed(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.faults.stall_at.append(700_000)
    environment = {**os.environ, "AIPG_PLUGINS__ALLOW": '["models"]'}
    host = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), hub.url, REPO], env=environment
    )
    try:
        hidden = tmp_path / "models" / HIDDEN
        await eventually(lambda: any(e.stat().st_size == 700_000 for e in hidden.glob("*.part")))
        (fetcher,) = psutil.Process(host.pid).children()
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait(10)
    await eventually(lambda: not fetcher.is_running() or fetcher.status() == "zombie")
    async with kernel_at(tmp_path, hub) as kernel:
        await kernel.call("downloadModel", ASKED)
    assert (tmp_path / "models/llm/mine" / FILE).read_bytes() == MODEL
    assert hub.bodies()[-1].headers["range"] == "bytes=700000-"


async def test_closing_the_kernel_ends_its_downloads(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.stall_at.append(1000)
    async with kernel_at(tmp_path, hub) as kernel:
        waiting = asyncio.create_task(kernel.call("downloadModel", ASKED))
        await stalled(kernel, 1000)
    with pytest.raises(DownloadCancelled):
        await waiting
    assert fetchers() == []


@pytest.mark.full
async def test_more_than_may_be_at_once_wait(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.stall_at.append(1000)
    async with kernel_at(tmp_path, hub, parallel=1) as kernel:
        await kernel.call("startDownload", ASKED)
        await stalled(kernel, 1000)
        other = await kernel.call("startDownload", {"repo": REPO, "filename": "other.bin"})
        assert other["status"] == "queued"
        assert (await kernel.call("cancelDownload", other["id"]))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        ({"repo": "nothing"}, InvalidParameters, "repo"),
        ({"repo": REPO, "destination": "../x"}, InvalidParameters, "destination"),
        ({"repo": REPO, "type": "lllm"}, InvalidParameters, "type"),
        ({"repo": f"{REPO}:Q4_K_M", "filename": FILE}, InvalidParameters, "repo"),
        ({"repo": REPO, "filename": FILE, "include": ["*"]}, InvalidParameters, "filename"),
    ],
)
async def test_bad_input_is_refused_at_once(
    tmp_path: Path, hub: HubServer, asked: dict[str, Any], kind: type[Exception], field: str
) -> None:
    async with kernel_at(tmp_path, hub) as kernel:
        with pytest.raises(kind) as refused:
            await kernel.call("downloadModel", asked)
        assert isinstance(refused.value, AIPlaygroundError)
        assert refused.value.details["field"] == field
        assert await kernel.call("listDownloads") == []
        with pytest.raises(InvalidParameters, match="There is no download"):
            await kernel.call("cancelDownload", "x")
    assert hub.seen == []


async def test_the_token_is_used_and_shown_nowhere(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO].gated = True
    said: list[str] = []
    async with kernel_at(tmp_path, hub) as kernel:
        async with kernel.subscribe(ModelDownloadProgress, snapshot=False) as events:
            with pytest.raises(ServiceNotAvailable, match="gated") as refused:
                await kernel.call("downloadModel", ASKED)
            said.append(str(refused.value.to_dict()))
            monkeypatch.setenv("HF_TOKEN", "hf_wrongWrongWrongWrong")
            with pytest.raises(ServiceNotAvailable, match="no access") as refused:
                await kernel.call("downloadModel", ASKED)
            said.append(str(refused.value.to_dict()))
            monkeypatch.setenv("HF_TOKEN", TOKEN)
            hub.faults.stall_at.append(1000)
            waiting = asyncio.create_task(kernel.call("downloadModel", ASKED))
            await stalled(kernel, 1000)
            (process,) = fetchers()
            said += [*process.cmdline(), *process.environ().values()]
            hub.release.set()
            await waiting
            async for event in events:
                said.append(repr(event))
                if getattr(event, "status", "") == "complete":
                    break
        said.append(str(await kernel.call("listDownloads")))
        logs = kernel.paths.logs
    said += [each.read_text() for each in logs.iterdir()]
    assert len(said) > 8
    assert not any(secret in text for text in said for secret in (TOKEN, "hf_wrongWrong"))


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")
@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
async def test_a_disk_that_is_full(tmp_path: Path, hub: HubServer) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        async with kernel_at(tmp_path / "home", hub) as kernel:
            from aiplayground.models import ModelPaths

            paths = kernel.model_paths
            kernel.model_paths = ModelPaths(disk, {**paths.folders, "llm": disk / "llm"})
            with pytest.raises(FileOperationError, match="too little room") as failed:
                await kernel.call("downloadModel", ASKED)
        assert failed.value.details["reason"] == "disk-full"
        assert not (disk / "llm").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.full
async def test_what_is_not_there_is_code_minus_2(tmp_path: Path, hub: HubServer) -> None:
    async with kernel_at(tmp_path, hub) as kernel:
        with pytest.raises(ModelNotFound, match="There are: Q4_K_M"):
            await kernel.call("downloadModel", {"repo": f"{REPO}:Q2_K"})
        (state,) = await kernel.call("listDownloads")
    assert state["status"] == "error"
    assert state["error"]["code"] == -2
