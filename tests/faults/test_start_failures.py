"""Starts that fail: each with its cause and the next step, and each leaves a service to start."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Served, alive, ask, kernel, spawned

from aiplayground._processes import ports
from aiplayground.errors import ServiceFailed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

WAYS = [
    ("missing program", {"argv": ["/not/there", "{port}"]}, "missing-file", "missing.*/not/there"),
    ("out of memory", ["say=failed to allocate", "exit=1"], "out-of-memory", "smaller model"),
    (
        "missing library",
        ["say=x: error while loading shared libraries: libgpu.so: cannot open", "exit=127"],
        "missing-library",
        "shared library is missing",
    ),
    ("missing package", ["say=No module named 'x'", "exit=1"], "missing-library", "engine up"),
    ("crash", ["signal=11"], "crash", "SIGSEGV.*engine crashed"),
    ("killed", ["signal=9"], "crash", "SIGKILL.*Free memory"),
    ("bad model", ["say=gguf_init: invalid magic characters", "exit=1"], "bad-model", "damaged"),
    ("missing file", ["say=m.bin: No such file or directory", "exit=1"], "missing-file", "m.bin"),
    ("silent end", ["exit=0"], "exit", "exit code 0 before it was asked to"),
    ("garbage", ["garbage", "exit=3"], "exit", "exit code 3"),
    ("own report", ['say=AIPG-ERROR {"code": -3, "message": "No GPU. Buy one."}', "exit=1"], "exit",
     "No GPU. Buy one."),
    ("never ready", ["hold"], "timeout", "did not answer within.*timeouts.start"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "how", "failure", "words"), WAYS, ids=[way[0] for way in WAYS])
async def test_each_way_to_fail_has_a_cause_and_leaves_a_service_to_start(
    tmp_path: Path, way: str, how: Any, failure: str, words: str
) -> None:
    served = Served(start_timeout=0.5) if way == "never ready" else Served()
    if isinstance(how, dict):
        served.argv = how["argv"]
    else:
        served.options = tuple(how)
    count = tmp_path / "count"
    served.options += (f"count={count}",)
    async with kernel(tmp_path, served) as k:
        with pytest.raises(ServiceFailed, match=f"(?s){words}") as caught:
            await k.start("served")
        assert caught.value.failure == failure
        assert caught.value.code == -3
        assert caught.value.message.startswith("served: ")
        info = k.service("served")
        assert (info.status, info.runtime, info.set_up) == ("Stopped", "failed", True)
        assert info.workers == ()
        assert info.error is not None
        assert info.error["details"]["failure"] == failure
        assert not any(alive(pid) for pid in spawned(count))
        served.argv, served.options, served.launch = None, (), {}
        assert (await k.start("served")).status == "Running"
        assert await ask(k) == "word word word "


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_a_fixed_port_that_is_taken_names_the_holder(tmp_path: Path, taken: int) -> None:
    settings = {"services": {"served": {"port": taken}}}
    async with kernel(tmp_path, Served(), settings=settings) as k:
        with pytest.raises(ServiceFailed, match=rf"{taken} is in use by \S+ \(pid \d+\)") as caught:
            await k.start("served")
        assert caught.value.failure == "port-taken"
        assert k.service("served").runtime == "failed"


async def test_a_preferred_port_that_is_taken_gives_way(tmp_path: Path, taken: int) -> None:
    served = Served()
    served.spec = replace(served.spec, preferred_port=taken)
    async with kernel(tmp_path, served) as k:
        info = await k.start("served")
        assert info.port not in (0, taken)
        assert info.base_url == f"http://127.0.0.1:{info.port}"


async def test_a_fixed_port_is_kept_over_a_restart_of_the_service(tmp_path: Path) -> None:
    port = ports.choose(None)
    settings = {"services": {"served": {"port": port}}}
    async with kernel(tmp_path, Served(), settings=settings) as k:
        for _ in range(3):
            assert (await k.start("served")).port == port
            await ask(k)
            await k.stop("served")


async def test_a_port_that_the_system_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    async with kernel(tmp_path, Served(), settings={"services": {"served": {"port": 80}}}) as k:
        with monkeypatch.context() as patch:
            patch.setattr(ports, "bind", refuses)
            with pytest.raises(ServiceFailed, match=r"main at 80: Permission denied\. Set"):
                await k.start("served")
        assert k.service("served").runtime == "failed"


async def test_an_answer_of_another_process_on_the_port_is_not_taken_for_the_workers(
    tmp_path: Path,
) -> None:
    """The worker listens elsewhere, and somebody else answers where it should."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    port, elsewhere = ports.choose(None), ports.choose(None)
    served = Served(f"port={elsewhere}")
    settings = {"services": {"served": {"port": port}}}
    async with kernel(tmp_path, served, settings=settings) as k:

        async def intrude() -> None:
            service = k._services["served"]
            while not service.pool.workers or service.pool.workers["main"].pid is None:
                await asyncio.sleep(0)
            server = await asyncio.start_server(answer, "127.0.0.1", port)
            async with server:
                await asyncio.Event().wait()

        intruder = asyncio.ensure_future(intrude())
        try:
            with pytest.raises(ServiceFailed, match=rf"port {port} is answered by .*pid") as caught:
                await k.start("served")
        finally:
            intruder.cancel()
            await asyncio.wait({intruder})
        assert caught.value.failure == "port-taken"


async def test_progress_in_the_log_extends_the_deadline(tmp_path: Path) -> None:
    served = Served("chatter=20", start_timeout=0.5)
    async with kernel(tmp_path, served) as k:
        assert (await k.start("served")).status == "Running"
