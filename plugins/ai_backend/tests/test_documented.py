"""The documented REST API, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugins.ai_backend.tests.serving import gateway, question
from tests.fakes import Fake

from aiplayground.hookspecs import hookimpl
from aiplayground.types import ModelInfo

CHECK = "/api/checkModelAlreadyLoaded"


class Files(Fake):
    """A backend whose models lie in files."""

    @hookimpl
    async def list_models(self) -> list[ModelInfo]:
        return [
            ModelInfo(name="small", path="/models/acme---small/small.gguf"),
            ModelInfo(name="one/twice", path="/models/llm/one/twice.gguf"),
            ModelInfo(name="two/twice", path="/models/llm/acme/two/twice.gguf"),
        ]


async def test_healthy(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (kernel, client):
        answer = await client.get("/healthy")
        head = await client.head("/healthy")
        info = kernel.service("ai-backend")
    assert answer.json() == {"status": "ok", "version": "3.0.0"}
    assert head.status_code == 200
    assert head.content == b""
    assert info.required
    assert info.base_url == str(client.base_url).rstrip("/")


async def test_check_model_already_loaded(tmp_path: Path) -> None:
    asked = {"data": {"repo": "acme/small", "filename": "small.gguf"}}
    async with gateway(tmp_path, Files()) as (_, client):
        before = (await client.post(CHECK, json=asked)).json()
        await client.post("/v1/chat/completions", json=question("small"))
        after = (await client.post(CHECK, json=asked)).json()
        absent = (await client.post(CHECK, json={"data": {"repo": "acme/large"}})).json()
        wrong = await client.post(CHECK, json={"repo": "acme/small"})
        twice = {"data": {"repo": "acme/two", "filename": "twice.gguf"}}
        own = (await client.post(CHECK, json=twice)).json()
    assert own["data"]["path"] == "/models/llm/acme/two/twice.gguf"
    data = {"loaded": False, "path": "/models/acme---small/small.gguf"}
    assert before == {"code": 0, "message": "success", "data": data}
    assert after == {"code": 0, "message": "success", "data": {**data, "loaded": True}}
    assert absent["data"] == {"loaded": False}
    assert wrong.status_code == 400
    assert wrong.json()["code"] == -4


@pytest.mark.parametrize(
    "path",
    [
        "/api/downloadModel",
        "/api/comfyUi/checkWorkflowRequirements",
        "/api/comfyUi/installCustomNode",
        "/api/comfyUi/installPythonPackage",
    ],
)
async def test_routes_of_absent_plugins_say_what_to_install(tmp_path: Path, path: str) -> None:
    async with gateway(tmp_path) as (_, client):
        answer = await client.post(path, json={})
    assert answer.status_code == 503
    body = answer.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == -3
    assert f"pip install {body['details']['package']}" in body["message"]


async def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, client):
        nothing = await client.get("/healty")
        method = await client.delete("/healthy")
        openai = await client.get("/v1/nothing")
    assert nothing.status_code == 404
    assert "/healthy" in nothing.json()["message"]
    assert method.status_code == 405
    assert method.headers["allow"] == "GET, HEAD"
    assert openai.json()["error"]["message"] == openai.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", {"prompt": "a fish"}),
        ("/v1/audio/speech", {"input": "Hello", "model": "m"}),
        ("/v1/audio/transcriptions", None),
        ("/v1/rerank", {"query": "q", "documents": ["d"]}),
    ],
)
async def test_what_no_backend_does_is_said(tmp_path: Path, path: str, body: object) -> None:
    async with gateway(tmp_path, Fake()) as (_, client):
        answer = await client.post(path, json=body)
    assert answer.status_code == 503
    assert answer.json()["details"]["capability"]
