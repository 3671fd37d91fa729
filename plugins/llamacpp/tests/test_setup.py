"""Setting up llama-server, from a server on this machine that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.llamacpp.tests.file_server import Files, serving
from scripts import llama_server

from aiplayground.errors import (
    FileOperationError,
    InvalidSettings,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground_llamacpp.server import install, setup
from aiplayground_llamacpp.server.download import PART, WrongBytes, fetch
from aiplayground_llamacpp.server.program import executable
from aiplayground_llamacpp.server.release import (
    Asset,
    Release,
    candidates,
    machine_shows,
    pinned,
    system,
)
from aiplayground_llamacpp.server.unpack import unpack
from aiplayground_llamacpp.settings import Settings

TAG = "b1"
DATA = bytes(range(256)) * 12_000


@pytest.fixture
def files() -> Iterator[Files]:
    with serving(Files()) as served:
        yield served


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def asset_of(data: bytes, name: str = "a.tar.gz") -> Asset:
    return Asset(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def download(
    http: httpx.AsyncClient, files: Files, asset: Asset, folder: Path
) -> list[float]:
    url = f"{files.url}/{asset.name}"
    return [each async for each in fetch(http, url, asset, folder, stall=0.5, pause=0.01)]


async def test_a_download_that_breaks_goes_on_where_it_ended(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA
    files.drop_after = [1_500_000, 300_000, 0, 0]
    seen = await download(http, files, asset_of(DATA), tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == DATA
    assert not (tmp_path / ("a.tar.gz" + PART)).exists()
    assert seen == sorted(seen)
    places = [asked for _, asked in files.requests]
    assert places[0] is None
    assert len({place for place in places[1:] if place}) >= 2
    files.requests.clear()
    assert await download(http, files, asset_of(DATA), tmp_path) == [1.0]
    assert files.requests == []


async def test_a_server_without_ranges_begins_anew(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA
    files.ignore_range = True
    files.drop_after = [1_500_000]
    await download(http, files, asset_of(DATA), tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == DATA


async def test_a_connection_that_stalls_is_given_up_and_tried_again(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA
    files.stall = 1000
    with pytest.raises(ServiceNotAvailable, match="goes on where it ended"):
        await download(http, files, asset_of(DATA), tmp_path)
    assert len(files.requests) >= 5
    files.stall = None
    await download(http, files, asset_of(DATA), tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == DATA


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(DATA[:-1] + b"x", "SHA-256"), (DATA + b"more", "longer")],
)
async def test_wrong_bytes_are_never_used(
    files: Files, http: httpx.AsyncClient, tmp_path: Path, wrong: bytes, words: str
) -> None:
    files.contents["/a.tar.gz"] = wrong
    with pytest.raises(WrongBytes, match=words):
        await download(http, files, asset_of(DATA), tmp_path)
    assert not (tmp_path / "a.tar.gz").exists()
    files.contents["/a.tar.gz"] = DATA
    (tmp_path / ("a.tar.gz" + PART)).unlink(missing_ok=True)
    await download(http, files, asset_of(DATA), tmp_path)


async def test_a_file_that_is_shorter_than_promised(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA[:1000]
    with pytest.raises((ServiceNotAvailable, WrongBytes)):
        await download(http, files, asset_of(DATA), tmp_path)
    assert not (tmp_path / "a.tar.gz").exists()


async def test_a_file_that_is_not_there(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    with pytest.raises(ServiceNotAvailable, match="HTTP 404"):
        await download(http, files, asset_of(DATA), tmp_path)


async def test_a_download_that_is_closed_keeps_what_it_has(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA
    asset = asset_of(DATA)
    steps = fetch(http, f"{files.url}/a.tar.gz", asset, tmp_path)
    await anext(steps)
    await steps.aclose()
    kept = (tmp_path / ("a.tar.gz" + PART)).stat().st_size
    assert 0 < kept < len(DATA)
    await download(http, files, asset, tmp_path)
    assert files.requests[-1][1] == f"bytes={kept}-"


KILLED = """
import asyncio, sys
from pathlib import Path
import httpx
from aiplayground_llamacpp.server.download import fetch
from aiplayground_llamacpp.server.release import Asset

async def main():
    async with httpx.AsyncClient(trust_env=False) as http:
        asset = Asset(name="a.tar.gz", size=int(sys.argv[2]), sha256="0" * 64)
        async for _ in fetch(http, sys.argv[1] + "/a.tar.gz", asset, Path(sys.argv[3])):
            print("step", flush=True)

asyncio.run(main())
"""


async def test_a_download_whose_process_was_killed_goes_on(
    files: Files, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    files.contents["/a.tar.gz"] = DATA
    files.stall = 2_000_000
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, files.url, str(len(DATA)), str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), 30) == b"step\n"
    child.kill()
    await asyncio.wait_for(child.wait(), 10)
    files.stall = None
    files.requests.clear()
    await download(http, files, asset_of(DATA), tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == DATA


# Archives ---------------------------------------------------------------------------------


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../out"),
        member("a/../../out"),
        member("/tmp/out-of-it"),  # it must not be made
        member("a/link", tarfile.SYMTYPE, "../../out"),
        member("a/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("a/link", tarfile.LNKTYPE, "../../out"),
        member("a/pipe", tarfile.FIFOTYPE),
        member("a/device", tarfile.CHRTYPE),
    ],
)
def test_nothing_leaves_the_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", (member("a/good"), b"x"), (bad, b""))
    with pytest.raises(FileOperationError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "inner" / "into")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "inner" / "out").exists()


def test_links_within_the_folder_stay_links(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tar.gz",
        (member("top/lib.so.1"), b"code"),
        (member("top/lib.so", tarfile.SYMTYPE, "lib.so.1"), b""),
        (member("top/hard", tarfile.LNKTYPE, "top/lib.so.1"), b""),
    )
    unpack(archive, tmp_path / "into")
    assert (tmp_path / "into" / "lib.so").read_bytes() == b"code"
    assert (tmp_path / "into" / "lib.so").is_symlink()
    assert (tmp_path / "into" / "hard").read_bytes() == b"code"
    assert os.access(tmp_path / "into" / "lib.so.1", os.X_OK)


def test_zips_are_checked_too(tmp_path: Path) -> None:
    def zipped(name: str, *, mode: int = 0o644) -> Path:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as package:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            package.writestr(info, b"x")
        return path

    for name in ("../out", "a\\..\\..\\out", "C:out"):
        with pytest.raises(FileOperationError):
            unpack(zipped(name), tmp_path / "into")
    with pytest.raises(FileOperationError, match="is a link"):
        unpack(zipped("link", mode=stat.S_IFLNK | 0o777), tmp_path / "into")
    unpack(zipped("run.exe", mode=stat.S_IFREG | 0o755), tmp_path / "into")
    assert (tmp_path / "into" / "run.exe").read_bytes() == b"x"
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"<html>")
    with pytest.raises(FileOperationError):
        unpack(path, tmp_path / "into")


# Which build ------------------------------------------------------------------------------


def test_every_system_has_a_build_and_every_pinned_file_a_name_of_its_release() -> None:
    release = pinned()
    for where in ("linux-x64", "linux-arm64", "macos-arm64", "macos-x64", "windows-x64"):
        assert candidates("auto", where, release, lambda each: each == "metal")
    for assets in release.builds.values():
        for asset in assets:
            assert asset.name.endswith((".tar.gz", ".zip"))
            assert release.tag in asset.name or asset.name.startswith("cudart-")
            assert len(asset.sha256) in (0, 64)
            assert bool(asset.size) == bool(asset.sha256)


def test_auto_takes_what_the_machine_shows_and_the_cpu_after_it() -> None:
    def builds(variant: str, *shown: str, where: str = "linux-x64") -> list[str]:
        return candidates(variant, where, pinned(), lambda each: each in shown)

    assert builds("auto") == ["linux-x64-cpu"]
    assert builds("auto", "vulkan") == ["linux-x64-vulkan", "linux-x64-cpu"]
    assert builds("auto", "vulkan", "cuda") == ["linux-x64-cuda", "linux-x64-cpu"]
    assert builds("auto", "metal", where="macos-arm64") == ["macos-arm64-metal"]
    assert builds("sycl") == ["linux-x64-sycl"]
    with pytest.raises(InvalidSettings, match="There are: cpu, vulkan"):
        builds("sycl", where="linux-arm64")
    with pytest.raises(InvalidSettings, match="llama_server"):
        builds("auto", where="plan9-mips")
    assert machine_shows("sycl") is False


# The whole --------------------------------------------------------------------------------


@dataclass
class Ctx:
    """What setting up uses of a ServiceContext."""

    data_dir: Path
    cache_dir: Path
    settings: Settings
    service: str = "llamacpp-backend"
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("test"))

    async def run_sync(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *args, **named)


@pytest.fixture
def ctx(tmp_path: Path, files: Files) -> Any:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    cache.mkdir()
    settings = Settings(
        engine="llama-server", llama_server_mirror=files.url, llama_server_build="cpu"
    )
    return Ctx(data, cache, settings)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A release's archive around the real program."""
    path = tmp_path_factory.mktemp("archive") / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(llama_server.ready(), f"llama-{TAG}/{executable()}")
        tar.addfile(member(f"llama-{TAG}/lib.so", tarfile.SYMTYPE, executable()))
    return path.read_bytes()


def release_of(files: Files, **builds: bytes) -> Release:
    made = {}
    for variant, data in builds.items():
        asset = asset_of(data, f"llama-{TAG}-{variant}.tar.gz")
        files.contents[f"/{TAG}/{asset.name}"] = data
        made[f"{system()}-{variant}"] = (asset,)
    return Release(tag=TAG, download="http://nowhere.invalid", metadata=files.url, builds=made)


async def run(ctx: Any, release: Release) -> list[tuple[str, float]]:
    return [(step.stage, step.progress) async for step in setup.set_up(ctx, release)]


@pytest.mark.engine
async def test_it_is_fetched_tried_and_found_again(ctx: Any, files: Files, archive: bytes) -> None:
    release = release_of(files, cpu=archive)
    files.drop_after = [len(archive) // 2]
    steps = await run(ctx, release)
    progress = [each for _, each in steps]
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert list(dict.fromkeys(stage for stage, _ in steps)) == [
        "download", "unpack", "verify", "done",
    ]  # fmt: skip
    program = install.installed_program(ctx.data_dir)
    assert program is not None
    assert await setup.engine_version(ctx)
    assert not any(ctx.cache_dir.iterdir())
    assert {each.name for each in install.root(ctx.data_dir).iterdir()} == {
        install.RECORD, f"{TAG}-{system()}-cpu",
    }  # fmt: skip
    files.requests.clear()
    assert await run(ctx, release) == [("check", 100)]
    assert files.requests == []


@pytest.mark.engine
async def test_a_broken_installation_is_noticed_and_mended(
    ctx: Any, files: Files, archive: bytes
) -> None:
    release = release_of(files, cpu=archive)
    await run(ctx, release)
    program = install.installed_program(ctx.data_dir)
    assert program is not None
    program.unlink()
    with pytest.raises(ServiceFailed, match="Set it up again"):
        await setup.engine_version(ctx)
    await run(ctx, release)
    assert await setup.engine_version(ctx)
    (install.root(ctx.data_dir) / install.RECORD).write_text("{")
    with pytest.raises(ServiceFailed):
        await setup.engine_version(ctx)
    await setup.remove(ctx)
    assert not install.root(ctx.data_dir).exists()


@pytest.mark.engine
async def test_closed_in_the_middle_nothing_counts(ctx: Any, files: Files, archive: bytes) -> None:
    release = release_of(files, cpu=archive)
    for stage in ("download", "unpack", "verify"):
        steps = setup.set_up(ctx, release)
        async for step in steps:
            if step.stage == stage:
                break
        await steps.aclose()
        assert install.read(ctx.data_dir) is None
    assert (await run(ctx, release))[-1] == ("done", 100)


def scripted(text: str) -> bytes:
    """An archive whose llama-server is a script."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = member(f"llama-{TAG}/{executable()}")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


LIBRARY = "#!/bin/sh\necho 'error while loading shared libraries: libcuda.so.1' >&2\nexit 127\n"


@pytest.mark.engine
async def test_what_does_not_run_does_not_count(
    ctx: Any, files: Files, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_of(files, vulkan=scripted(LIBRARY), cpu=archive)
    ctx.settings = ctx.settings.model_copy(update={"llama_server_build": "vulkan"})
    with pytest.raises(ServiceFailed, match=r"libcuda\.so\.1"):
        await run(ctx, release)
    assert install.read(ctx.data_dir) is None
    # Nobody asked for this one: the CPU's takes its place.
    monkeypatch.setattr(setup, "machine_shows", lambda variant: variant == "vulkan")
    ctx.settings = ctx.settings.model_copy(update={"llama_server_build": "auto"})
    assert (await run(ctx, release))[-1] == ("done", 100)
    found = install.read(ctx.data_dir)
    assert found is not None
    assert found.build.endswith("-cpu")
    files.requests.clear()
    assert await run(ctx, release) == [("check", 100)]
    assert files.requests == []


@pytest.mark.engine
async def test_a_checksum_that_is_not_pinned_is_the_releases_own(
    ctx: Any, files: Files, archive: bytes
) -> None:
    release = release_of(files, cpu=archive)
    (asset,) = release.builds[f"{system()}-cpu"]
    blank = replace(asset, sha256="", size=0)
    release = replace(release, builds={f"{system()}-cpu": (blank,)})
    told = {"name": asset.name, "size": asset.size}
    for digest in (None, "md5:" + "0" * 32, "sha256:12"):
        body = {"assets": [{**told, "digest": digest}]}
        files.contents[f"/{TAG}"] = json.dumps(body).encode()
        with pytest.raises(ServiceNotAvailable, match="nothing is installed without"):
            await run(ctx, release)
    body = {"assets": [{**told, "digest": "sha256:" + "0" * 64}]}
    files.contents[f"/{TAG}"] = json.dumps(body).encode()
    with pytest.raises(WrongBytes):
        await run(ctx, release)
    body = {"assets": [{**told, "digest": f"sha256:{asset.sha256}"}]}
    files.contents[f"/{TAG}"] = json.dumps(body).encode()
    assert (await run(ctx, release))[-1] == ("done", 100)


async def test_the_other_engine_needs_nothing(ctx: Any) -> None:
    ctx.settings = Settings()
    assert [stage for stage, _ in await run(ctx, pinned())] == ["check"]
    with pytest.raises(ServiceNotAvailable, match="nothing to remove"):
        await setup.remove(ctx)


async def test_an_own_program_is_only_tried(ctx: Any, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    ctx.settings = Settings(engine="llama-server", llama_server=str(own))
    with pytest.raises(ServiceFailed, match="cannot be run"):
        await run(ctx, pinned())
    own.write_text("#!/bin/sh\necho 'version: 0.5.0-dev (build 11146, commit 7fe450e19)'\n")
    own.chmod(0o755)
    assert await run(ctx, pinned()) == [("check", 100)]
    assert await setup.engine_version(ctx) == "b11146"
