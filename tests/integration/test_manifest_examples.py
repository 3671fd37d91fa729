"""The manifests of the documentation, with the real programs: as backends, and attached."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from tests.endpoints import answers, attach, free_port
from tests.fakes import PATIENCE, ask, collect, eventually, kernel, nothing_leaks, question
from tests.faults.marks import marked
from tests.faults.test_kernel_kill import CHILDREN, LIMIT, program
from tests.programs import GUIDE, llama_server

from aiplayground.errors import FailureClass, ServiceFailed
from aiplayground.kernel import Kernel
from aiplayground.manifest import load_manifest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
EXAMPLES = Path(__file__).parents[2] / "docs/examples"
GREEDY = {"temperature": 0.0, "max_tokens": 32}


class Example(NamedTuple):
    file: Path
    service: str
    settings: dict[str, Any]


def first() -> Example:
    settings = {"program": llama_server()}
    return Example(EXAMPLES / "llama-server.toml", "llama-server", settings)


def second() -> Example:
    service = "llama-cpp-python-server"
    return Example(EXAMPLES / f"{service}.toml", service, {"python": sys.executable})


@pytest.fixture(params=[first, second], ids=["llama-server", "llama-cpp-python-server"])
def example(request: pytest.FixtureRequest) -> Example:
    make: Callable[[], Example] = request.param
    return make()


def settings_of(example: Example) -> dict[str, Any]:
    return {
        "models": {"folders": [str(GUIDE.parent)]},
        "services": {example.service: example.settings},
        "timeouts": {"start": 60.0, "drain": 0.2},
    }


def opened(tmp_path: Path, example: Example) -> Kernel:
    return Kernel(
        home=tmp_path / "home",
        plugins={example.service: example.file},
        discover=False,
        settings=settings_of(example),
        environ={},
    )


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_an_example_is_short(file: Path) -> None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 20
    assert load_manifest(file).manifest.name == file.stem


async def refuses_strangers(base_url: str) -> bool:
    import httpx

    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    async with httpx.AsyncClient(trust_env=False) as stranger:
        answer = await stranger.post(base_url + "/v1/chat/completions", json=body)
    return answer.status_code == httpx.codes.UNAUTHORIZED


async def test_an_example_chats_is_restarted_and_stops(tmp_path: Path, example: Example) -> None:
    name = example.service
    with nothing_leaks():
        async with opened(tmp_path, example) as k:
            info = await k.start(name)
            assert (info.status, info.models) == ("Running", ("guide",))
            assert await refuses_strangers(info.base_url)
            chunks = await collect(k.chat(question("guide", **GREEDY)))
            assert len([chunk for chunk in chunks if chunk.text]) > 5, "piece by piece"
            assert chunks[-1].finish_reason in ("stop", "length")
            await killed_in_mid_answer(k, name, psutil.Process(info.workers[0].pid).children()[0])
            again = await ask(k, "guide", **GREEDY)
            assert again == "".join(chunk.text for chunk in chunks)
            tree = psutil.Process(k.service(name).workers[0].pid).children(recursive=True)
            assert tree
            assert (await k.stop(name)).status == "Stopped"
            assert not psutil.wait_procs(tree, timeout=PATIENCE)[1]


async def killed_in_mid_answer(k: Kernel, name: str, server: psutil.Process) -> None:
    server.suspend()  # else an answer as short as these may be complete before the kill
    answer = asyncio.ensure_future(ask(k, "guide", **GREEDY))
    await eventually(lambda: k._services[name].ops.residency.busy("guide"))
    server.kill()
    with pytest.raises(ServiceFailed, match="SIGKILL") as caught:
        await answer
    assert caught.value.failure is FailureClass.CRASH
    await eventually(lambda: k.service(name).workers[0].restarts == 1)
    await eventually(lambda: k.service(name).runtime == "running")


def test_no_example_outlives_a_killed_kernel(tmp_path: Path, example: Example) -> None:
    settings = json.dumps(settings_of(example))
    argv = [str(CHILDREN / "kernel_host.py"), str(tmp_path / "home"), str(example.file)]
    with program(tmp_path, *argv, example.service, "guide", settings) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["open\n", "running\n"]
        assert len(marked(str(tmp_path))) >= 3, "the host, the guard, the server"
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + LIMIT
        while (left := marked(str(tmp_path))) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left


async def test_a_real_server_can_be_attached(tmp_path: Path) -> None:
    port, key = free_port(), "sk-only-between-us-two"
    argv = [llama_server(), "--port", str(port), "--model", str(GUIDE), "--alias", "guide"]
    # `--pooling` and `--embeddings` together let one process chat and embed.
    server = subprocess.Popen(
        [*argv, "--embeddings", "--pooling", "mean"],
        env={**os.environ, "LLAMA_API_KEY": key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not answers(port):
                await asyncio.sleep(0.05)
        settings = attach(f"http://127.0.0.1:{port}/v1", api_key=key, ready_path="/health")
        async with kernel(tmp_path, settings=settings) as k:
            assert [model.name for model in await _listed(k)] == ["guide"]
            assert await ask(k, "guide", **GREEDY)
            completion = {"kind": "completion", "model": "guide", "prompt": "A", "max_tokens": 3}
            assert await collect(k.generate(completion))
            (vector,) = (await k.embed({"model": "guide", "input": ["Hello"]})).vectors
            assert len(vector) == 128
        assert server.poll() is None
    finally:
        server.kill()
        server.wait(PATIENCE)


async def _listed(k: Kernel) -> list[Any]:
    """Wait until the server has loaded its model: until then it answers 503."""
    async with asyncio.timeout(PATIENCE):
        while not (models := await k.models()):
            await asyncio.sleep(0.05)
    return models
