"""The second choice of engine through the kernel: hooks, supervision, llama-server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from plugins.llamacpp.tests import kernels
from plugins.llamacpp.tests.file_server import Files, serving
from plugins.llamacpp.tests.kernels import SERVICE, home_with_model
from plugins.llamacpp.tests.tiny_model import write_model
from scripts import llama_server
from tests.fakes import ask, question

from aiplayground import CompletionRequest, Kernel
from aiplayground.errors import (
    FailureClass,
    InvalidModelFile,
    InvalidParameters,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.events import ServiceSetUpProgress, WebServiceExit
from aiplayground.types import EmbedRequest
from aiplayground_llamacpp.server import setup
from aiplayground_llamacpp.server.program import executable
from aiplayground_llamacpp.server.release import Asset, Release, system

pytestmark = pytest.mark.engine


def options(home: Path, **more: Any) -> dict[str, Any]:
    chosen = {"engine": "llama-server", "llama_server": str(llama_server.ready()), **more}
    return kernels.options(home, services={SERVICE: chosen})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_with_model(tmp_path)


@pytest.fixture
async def kernel(home: Path) -> AsyncIterator[Kernel]:
    async with Kernel(**options(home)) as kernel:
        yield kernel


def servers(kernel: Kernel) -> list[psutil.Process]:
    """The llama-server processes under the kernel's workers."""
    pids = [worker.pid for worker in kernel.service(SERVICE).workers if worker.pid is not None]
    below = [each for pid in pids for each in psutil.Process(pid).children(recursive=True)]
    return [each for each in below if each.name().startswith("llama-server")]


async def test_it_answers_completes_embeds_and_calls(kernel: Kernel) -> None:
    await kernel.start(SERVICE)
    assert kernel.service(SERVICE).status.value == "Running"
    assert [worker.model for worker in kernel.service(SERVICE).workers] == [None]
    assert servers(kernel) == []
    assert await ask(kernel, "tiny", max_tokens=8, temperature=0)
    assert len(servers(kernel)) == 1
    request = CompletionRequest(model="tiny", prompt="Once", max_tokens=4, logprobs=True)
    assert [event.kind async for event in kernel.generate(request)]
    vectors = await kernel.embed(EmbedRequest(model="tiny", input=["Hello"]))
    assert vectors.vectors
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tool = {"type": "function", "function": {"name": "switch", "parameters": schema}}
    asked = question("tiny", tools=[tool], tool_choice="required")
    chunks = [chunk async for chunk in kernel.chat(asked)]
    (call,) = [call for chunk in chunks for call in chunk.tool_calls or ()]
    assert json.loads(call["function"]["arguments"])["on"] in (True, False)
    assert kernel.service(SERVICE).version


async def test_two_models_have_two_processes_and_unloading_ends_one(
    kernel: Kernel, home: Path
) -> None:
    write_model(home / "models" / "other.gguf", seed=8)
    first = await ask(kernel, "tiny", max_tokens=8, temperature=0)
    assert first != await ask(kernel, "other", max_tokens=8, temperature=0)
    assert len(servers(kernel)) == 2
    await kernel.unload(SERVICE, "tiny")
    assert len(servers(kernel)) == 1
    assert first == await ask(kernel, "tiny", max_tokens=8, temperature=0)
    left = servers(kernel)
    await kernel.stop(SERVICE)
    assert not [each for each in left if each.is_running()]


async def test_llama_server_killed_in_mid_stream(kernel: Kernel) -> None:
    await ask(kernel, "tiny", max_tokens=1)
    events = kernel.subscribe(WebServiceExit, snapshot=False)
    answer = kernel.chat(question("tiny", max_tokens=400, ignore_eos=True))
    await anext(answer)
    (server,) = servers(kernel)
    server.kill()

    async def read() -> None:
        async for _ in answer:
            pass

    with pytest.raises(ServiceNotAvailable) as caught:
        await asyncio.wait_for(read(), 20)
    assert "SIGKILL" in caught.value.message
    exit_ = await asyncio.wait_for(anext(events), 20)
    assert isinstance(exit_, WebServiceExit)
    assert (exit_.service, exit_.exit_code) == (SERVICE, 1)
    assert await ask(kernel, "tiny", max_tokens=3)
    assert [each.pid for each in servers(kernel)] != [server.pid]


async def test_no_llama_server_outlives_its_worker(kernel: Kernel) -> None:
    await ask(kernel, "tiny", max_tokens=1)
    (server,) = servers(kernel)
    events = kernel.subscribe(WebServiceExit, snapshot=False)
    worker = server.parent()
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    await asyncio.to_thread(server.wait, 20)
    await asyncio.wait_for(anext(events), 20)
    assert await ask(kernel, "tiny", max_tokens=3)


async def test_a_caller_who_leaves_stops_the_engine(kernel: Kernel) -> None:
    answer = kernel.chat(question("tiny", max_tokens=500, ignore_eos=True))
    await anext(answer)
    await answer.aclose()
    assert await asyncio.wait_for(ask(kernel, "tiny", max_tokens=2), 20)


@pytest.mark.parametrize(
    ("more", "failure", "words"),
    [
        ({"devices": ["CUDA7"]}, None, "no device 'CUDA7'"),
        ({"extra_arguments": ["--frobnicate"]}, None, "--frobnicate"),
        ({"context_size": 2**31 - 1}, FailureClass.OUT_OF_MEMORY, "context_size"),
    ],
)
async def test_a_start_that_fails_says_why(
    home: Path, more: dict[str, Any], failure: FailureClass | None, words: str
) -> None:
    given = options(home, **more)
    given["settings"]["residency"] = {"memory_check": "off"}  # the program's own words are wanted
    async with Kernel(**given) as kernel:
        with pytest.raises((ServiceNotAvailable, InvalidParameters)) as caught:
            await ask(kernel, "tiny", max_tokens=2)
        assert words in caught.value.message
        if failure is not None and isinstance(caught.value, ServiceFailed):
            assert caught.value.failure is failure


async def test_a_program_that_is_not_there_is_told(home: Path) -> None:
    async with Kernel(**options(home, llama_server="/nowhere/llama-server")) as kernel:
        assert not kernel.service(SERVICE).set_up
        assert "/nowhere/llama-server" in str(kernel.service(SERVICE).error)
        with pytest.raises(ServiceNotAvailable):
            await kernel.start(SERVICE)


async def test_a_file_that_is_damaged_takes_nothing_down(kernel: Kernel, home: Path) -> None:
    assert await ask(kernel, "tiny", max_tokens=2)
    bad = home / "models" / "bad.gguf"
    bad.write_bytes((home / "models" / "tiny.gguf").read_bytes()[:3000])
    with pytest.raises(InvalidModelFile):
        await ask(kernel, str(bad))
    assert await ask(kernel, "tiny", max_tokens=2)


async def test_options_reach_the_program(home: Path) -> None:
    more = {"devices": ["none"], "cache_type_k": "f32", "extra_arguments": ["--no-warmup"]}
    async with Kernel(**options(home, **more)) as kernel:
        assert await ask(kernel, "tiny", max_tokens=2)
        (server,) = servers(kernel)
        line = server.cmdline()
        assert line[line.index("--device") + 1] == "none"
        assert line[line.index("--cache-type-k") + 1] == "f32"
        assert "--no-warmup" in line
        assert not any(worker.token in line for worker in _workers(kernel))


async def test_set_up_through_the_kernel(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(llama_server.ready(), f"llama-b1/{executable()}")
    data = packed.read_bytes()
    asset = Asset(name="llama-b1.tar.gz", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    builds = {f"{system()}-cpu": (asset,)}
    release = Release(tag="b1", download="http://nowhere.invalid", metadata="", builds=builds)
    monkeypatch.setattr(setup, "pinned", lambda: release)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with serving(Files(contents={"/b1/llama-b1.tar.gz": data})) as files:
        more = {"llama_server": "", "llama_server_mirror": files.url, "llama_server_build": "cpu"}
        async with Kernel(**options(home, **more)) as kernel:
            assert not kernel.service(SERVICE).set_up
            with pytest.raises(ServiceNotAvailable):
                await kernel.start(SERVICE)
            events = kernel.subscribe(ServiceSetUpProgress, snapshot=False)
            info = await kernel.set_up(SERVICE)
            assert info.set_up
            assert info.version
            step = await asyncio.wait_for(anext(events), 10)
            assert isinstance(step, ServiceSetUpProgress)
            assert step.stage == "download"
            assert await ask(kernel, "tiny", max_tokens=2)
            (server,) = servers(kernel)
            assert str(home) in server.exe()
            await kernel.stop(SERVICE)
            await kernel.uninstall(SERVICE)
            assert not kernel.service(SERVICE).set_up


def _workers(kernel: Kernel) -> list[Any]:
    return list(kernel._services[SERVICE].pool.workers.values())  # the token's place
