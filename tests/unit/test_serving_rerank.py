"""`POST /v1/rerank` and `GET /v1/models/{name}` of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.scripted import ScriptedEngine, says
from tests.unit.test_serving_app import serving

from aiplayground.serving.app import App
from aiplayground.serving.host import Host

BODY: dict[str, Any] = {"model": "m", "query": "abc", "documents": ["a", "abc", "xyz", "cab"]}


@asynccontextmanager
async def client_of(engine: ScriptedEngine, name: str = "m") -> AsyncIterator[httpx.AsyncClient]:
    lines: list[str] = []
    host = Host(engine, lines.append)
    await host.launch(Path("model"), name)
    transport = httpx.ASGITransport(app=App(host, "secret"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def rank(**fields: Any) -> httpx.Response:
    async with client_of(ScriptedEngine(says(""))) as client:
        return await client.post("/v1/rerank", json={**BODY, **fields})


async def test_the_best_come_first_and_ties_stay_in_order() -> None:
    answer = (await rank()).json()
    assert answer == {
        "model": "m",
        "object": "list",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 3, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.25},
            {"index": 2, "relevance_score": 0.0},
        ],
    }


async def test_documents_may_be_objects_and_come_back() -> None:
    documents = [{"text": "b"}, "abc"]
    answer = await rank(documents=documents, top_n=1, return_documents=True, user=None)
    assert answer.json()["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": {"text": "abc"}}
    ]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "abc"}, "documents"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": ["a", {"text": "b", "title": "c"}]}, "documents[1]"),
        ({"documents": [{"text": 7}]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"model": None}, "model"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    answer = await rank(**fields)
    assert (answer.status_code, answer.json()["code"]) == (400, -4)
    assert answer.json()["details"]["field"] == named
    assert answer.json()["error"]["param"] == named


async def test_another_model_is_not_found() -> None:
    assert (await rank(model="other")).status_code == 404


async def test_an_engine_that_cannot_rank_says_so() -> None:
    async with serving() as (_, client):
        answer = await client.post("/v1/rerank", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (400, -4)


@pytest.mark.parametrize("name", ["m", "folder/model file"])
async def test_one_model(name: str) -> None:
    async with client_of(ScriptedEngine(says("")), name) as client:
        one = await client.get(f"/v1/models/{name}")
        every = (await client.get("/v1/models")).json()["data"]
        wrong = await client.get("/v1/models/x")
        nothing = await client.get("/v1/models/")
        posted = await client.post(f"/v1/models/{name}")
    assert [one.json()] == every
    assert one.json()["id"] == name
    assert (wrong.status_code, wrong.json()["code"]) == (404, -2)
    assert wrong.json()["error"]["code"] == "model_not_found"
    assert (nothing.status_code, posted.status_code) == (404, 405)


async def test_no_model_is_found_where_none_is_loaded() -> None:
    async with serving() as (host, client):
        await host.unload()
        assert (await client.get("/v1/models/m")).status_code == 404
