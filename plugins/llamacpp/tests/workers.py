"""Worker processes, launched as the kernel does, and a client for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from scripts import llama_server

MODULES = {
    "python": "aiplayground_llamacpp.worker",
    "llama-server": "aiplayground_llamacpp.server.worker",
}
"""The worker's program by the choice of engine."""

ENGINES = tuple(MODULES)
TOKEN = "a-secret-of-the-test"


@dataclass
class Worker:
    """A worker process and a client for it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    port: int
    log: Path
    lifeline: int
    engine: str = "python"
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    @property
    def stderr(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_ready(self, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                answer = self.client.get("/health")
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code == 200:
                return dict(answer.json())
            time.sleep(0.02)
        raise AssertionError(f"the worker is not ready; it said:\n{self.stderr}")

    def wait_idle(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.client.get("/health").json()["active"] == 0:
                return
            time.sleep(0.01)
        raise AssertionError("the engine is still at work")

    def load(self, path: Path, name: str) -> httpx.Response:
        body = {"path": str(path), "name": name}
        return self.client.post("/models/load", json=body, headers=self.headers)

    def chat(self, text: str = "Hello", **fields: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Launch = Callable[..., Worker]


def with_program(arguments: Sequence[str], engine: str) -> list[str]:
    """Return the arguments with the llama-server to use in the settings, where they are sound."""
    if engine == "python":
        return list(arguments)
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    try:
        settings = json.loads(given.get("--settings", "{}"))
    except ValueError:
        return list(arguments)
    if isinstance(settings, dict):
        settings = {"llama_server": str(llama_server.ready()), **settings}
        given["--settings"] = json.dumps(settings)
    return [each for pair in given.items() for each in pair]


def start_worker(
    arguments: Sequence[str], env: Mapping[str, str], log: Path, engine: str = "python"
) -> Worker:
    # Held until the worker has ended: it dies with the test run, however that ends.
    watched, lifeline = os.pipe()
    own = {"AIPG_WORKER_TOKEN": TOKEN, "AIPG_PARENT_FD": str(watched)}
    with socket.socket() as sock, log.open("wb") as output:
        sock.bind(("127.0.0.1", 0))
        sock.set_inheritable(True)
        port = sock.getsockname()[1]
        where = [] if "--port" in arguments else ["--fd", str(sock.fileno())]
        process = subprocess.Popen(
            [sys.executable, "-m", MODULES[engine], *where, *with_program(arguments, engine)],
            env={**os.environ, **own, **env},
            pass_fds=[sock.fileno(), *([watched] if "AIPG_PARENT_FD" not in env else [])],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    os.close(watched)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
    return Worker(process, client, port, log, lifeline, engine)


def end_worker(worker: Worker) -> None:
    worker.client.close()
    # All of its group: the kernel's guard, which would end what it leaves, is not there.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait(20)
    os.close(worker.lifeline)


@contextlib.contextmanager
def pair_of(arguments: Sequence[str], folder: Path) -> Iterator[list[Worker]]:
    """Start a worker of each engine, with its log in a folder."""
    workers = [start_worker(arguments, {}, folder / engine, engine) for engine in ENGINES]
    try:
        for worker in workers:
            worker.wait_ready()
        yield workers
    finally:
        for worker in workers:
            end_worker(worker)
