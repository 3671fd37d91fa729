"""llama.cpp's own server on the same files: greedy answers must be the same."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.llamacpp.tests.tiny_model import write_model
from plugins.llamacpp.tests.tiny_parts import (
    picture,
    shown,
    write_adapter,
    write_projector,
    write_rows_model,
)
from scripts import llama_server

from aiplayground.types import ChatRequest
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.settings import Settings

pytestmark = pytest.mark.engine

PATIENCE = 30.0
FIELDS: dict[str, Any] = {"max_tokens": 30, "temperature": 0, "ignore_eos": True}
DETAILS: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
NEAR = 0.05

Choices = list[tuple[bytes, float]]


@contextmanager
def peer(*arguments: str) -> Iterator[httpx.Client]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    fixed = [
        str(llama_server.ready()),
        "--port",
        port,
        "--host",
        "127.0.0.1",
        "-t",
        "1",
        "-np",
        "1",
        "--jinja",
    ]
    process = subprocess.Popen(
        [*fixed, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        try:
            wait_for(client)
            yield client
        finally:
            process.kill()
            process.wait(PATIENCE)


def wait_for(client: httpx.Client) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if client.get("/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("llama-server did not come up")


def choices(entries: list[dict[str, Any]]) -> Choices:
    """Return each token's bytes, and how far the likeliest was before the next."""
    found = []
    for entry in entries:
        one, other = (each["logprob"] for each in entry["top_logprobs"])
        found.append((bytes(entry["bytes"]), one - other))
    return found


def theirs(client: httpx.Client, messages: list[dict[str, Any]]) -> Choices:
    body = {"messages": messages, **FIELDS, **DETAILS}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.is_success, answer.text
    return choices(answer.json()["choices"][0]["logprobs"]["content"])


async def ours(engine: LlamaEngine, messages: list[dict[str, Any]]) -> Choices:
    body = {"model": "tiny", "messages": messages, **FIELDS, **DETAILS}
    request = ChatRequest.model_validate(body)
    chunks = [chunk async for chunk in engine.chat(request)]
    return choices([entry for chunk in chunks for entry in chunk.logprobs or ()])


def check(own: Choices, peers: Choices) -> None:
    """Compare two answers up to a choice between two that were all but equal.

    The peer tells tokens that make up a character as one, and leaves out what begins one at the
    end: so it is bytes that are compared.
    """
    one, other = (b"".join(token for token, _ in answer) for answer in (own, peers))
    assert min(len(one), len(other)) > 20
    part = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if len({*pair}) > 1), None
    )
    if part is not None:
        gaps = [gap for token, gap in own for _ in token]
        assert gaps[part] < NEAR


async def engine_for(model: Path, **options: Any) -> LlamaEngine:
    engine = LlamaEngine(Settings.model_validate({"models": {"tiny": options}}), lambda line: None)
    await engine.open()
    await engine.load(model, "tiny", lambda fraction: None)
    return engine


@pytest.mark.parametrize("kind", ["mlp", "gemma3", "qwen2vl_merger"])
async def test_images_are_seen_alike(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "tiny.gguf"
    write_rows_model(model) if kind == "qwen2vl_merger" else write_model(model)
    projector = write_projector(tmp_path / "projector.gguf", kind)
    asked = [
        shown("look: ", picture(1), " what?"),
        shown("look: ", picture(2, 90, 50), " what?"),
        shown(picture(1), " and ", picture(2), picture(3), "?"),
    ]
    engine = await engine_for(model, projector=str(projector))
    with peer("-m", str(model), "--mmproj", str(projector)) as client:
        for messages in asked:
            check(await ours(engine, messages), theirs(client, messages))
    await engine.close()


@pytest.mark.parametrize("scale", [1.0, -0.5])
async def test_adapters_work_alike(tmp_path: Path, scale: float) -> None:
    model = write_model(tmp_path / "tiny.gguf")
    adapter = write_adapter(tmp_path / "adapter.gguf", model)
    engine = await engine_for(model, adapters=[{"path": str(adapter), "scale": scale}])
    with peer("-m", str(model), "--lora-scaled", f"{adapter}:{scale}") as client:
        messages = shown("Hello")
        check(await ours(engine, messages), theirs(client, messages))
    await engine.close()
