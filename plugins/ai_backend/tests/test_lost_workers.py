"""Workers that go away while they answer, seen through the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from plugins.ai_backend.tests.serving import gateway, question
from tests.fakes import Served, status

import aiplayground_guide.plugin as guide
import aiplayground_llamacpp.plugin as llamacpp

ENGINE = {"guide": guide, "llamacpp-backend": llamacpp}
CHAT = "/v1/chat/completions"


async def test_a_worker_killed_in_mid_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path, Served("chunks=3", "stall=1")) as (kernel, client):
        body = question(stream=True)
        async with client.stream("POST", CHAT, json=body) as answer:
            pieces = answer.aiter_bytes()
            first = await anext(pieces)
            (worker,) = kernel.service("served").workers
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            rest = (first + b"".join([each async for each in pieces])).decode()
        *_, last = [line for line in rest.splitlines() if line.startswith("data:")]
        told = json.loads(last.removeprefix("data:"))
        assert told["code"] == -3
        assert told["error"]["type"] == "server_error"
        assert "[DONE]" not in rest
        await status(kernel, "served", "Running")  # it was restarted


async def test_a_worker_that_crashes_in_mid_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path, Served("cut=60")) as (_, client):
        answer = await client.post(CHAT, json=question(stream=True))
        assert "[DONE]" not in answer.text
        assert '"code":-3' in answer.text


@pytest.mark.engine
@pytest.mark.parametrize("stream", [True, False])
async def test_llama_cpp_killed_in_mid_answer(tmp_path: Path, stream: bool) -> None:
    async with gateway(tmp_path, more=ENGINE) as (kernel, client):
        body = question("guide", stream=stream, ignore_eos=True, max_tokens=900)
        asked = asyncio.create_task(client.post(CHAT, json=body))
        while not kernel.service("llamacpp-backend").models:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        (worker,) = kernel.service("llamacpp-backend").workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        answer = await asked
    if not stream:
        assert answer.status_code == 503
        assert answer.json()["code"] == -3
    else:
        assert '"code":-3' in answer.text
        assert "[DONE]" not in answer.text
