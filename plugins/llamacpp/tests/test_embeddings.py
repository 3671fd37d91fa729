"""Vectors of texts, from models that write and from models that do nothing else."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.test_batching import NEAR, gap_where_they_part, with_logprobs
from plugins.llamacpp.tests.tiny_model import CONTEXT, WIDTH, write_model
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch, Worker

from aiplayground_llamacpp.embedder import MOST_TEXTS, batches

pytestmark = pytest.mark.engine

ENGINES = BOTH
PYTHON_ALONE = {
    # llama-server tells no probabilities of tokens that end within a character.
    "test_a_model_that_writes_makes_vectors_too_and_goes_on_writing",
}

MEAN = 1


def embed(worker: Worker, *texts: str, **fields: Any) -> list[list[float]]:
    body = {"model": "tiny", "input": list(texts), **fields}
    answer = worker.client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [each["index"] for each in data] == list(range(len(texts)))
    return [each["embedding"] for each in data]


@pytest.mark.parametrize("size", [33, 63, 257])
def test_the_context_may_have_any_size(launch: Launch, model_path: Path, size: int) -> None:
    settings = json.dumps({"context_size": size})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    assert len(embed(worker, *["a text"] * (MOST_TEXTS + 1))) == MOST_TEXTS + 1
    assert len(embed(worker, "x" * size)) == 1
    refused = worker.client.post(
        "/v1/embeddings", json={"model": "tiny", "input": "x" * size + "y"}
    )
    assert refused.json()["details"] == {"field": "input[0]", "tokens": size + 1, "limit": size}


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def embedding(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    path = write_model(tmp_path_factory.mktemp("models") / "embed.gguf", pooling=MEAN)
    return launch("--model", str(path), "--name", "tiny")


def test_vectors_have_length_one_and_say_what_is_alike(embedding: Worker) -> None:
    first, near, far = embed(embedding, "a small house", "a small mouse", "XYZ 12345 !?")
    assert {len(first), len(near), len(far)} == {WIDTH}
    assert math.isclose(cosine(first, first), 1, rel_tol=1e-5)
    assert cosine(first, near) > cosine(first, far)


def test_a_text_has_the_same_vector_whatever_is_beside_it(embedding: Worker) -> None:
    texts = [f"text number {number} " * (number % 12 + 1) for number in range(40)]
    together = embed(embedding, *texts)
    for text, vector in zip(texts, together, strict=True):
        assert cosine(embed(embedding, text)[0], vector) > 0.9999


def test_a_model_that_writes_makes_vectors_too_and_goes_on_writing(worker: Worker) -> None:
    before = with_logprobs(worker, "Hello", 30)
    with ThreadPoolExecutor(8) as pool:
        chats = [pool.submit(with_logprobs, worker, "Hello", 30) for _ in range(8)]
        vectors = list(pool.map(lambda n: embed(worker, "hello", f"number {n}"), range(8)))
    assert all(cosine(pair[0], vectors[0][0]) > 0.9999 for pair in vectors)
    for chat in chats:
        gap = gap_where_they_part(before, chat.result())
        assert gap is None or gap < NEAR
    worker.wait_idle()


def test_a_model_for_embeddings_writes_nothing(embedding: Worker) -> None:
    refused = embedding.chat()
    assert (refused.status_code, refused.json()["code"]) == (400, -4)
    assert "embeddings" in refused.json()["message"]
    assert embedding.client.get("/health").json()["context_length"] == CONTEXT


@pytest.mark.parametrize("text", ["", "x" * (CONTEXT + 1), "x" * 100_000])
def test_texts_that_have_no_vector(embedding: Worker, text: str) -> None:
    body = {"model": "tiny", "input": ["fine", text]}
    answer = embedding.client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, -4)
    assert embed(embedding, "fine")


def test_texts_are_put_into_batches_in_their_order() -> None:
    assert list(batches([5, 5, 5], 10)) == [slice(0, 2), slice(2, 3)]
    assert list(batches([10, 1], 10)) == [slice(0, 1), slice(1, 2)]
    assert list(batches([1] * (MOST_TEXTS + 1), 100)) == [
        slice(0, MOST_TEXTS), slice(MOST_TEXTS, MOST_TEXTS + 1),
    ]  # fmt: skip
    assert list(batches([], 10)) == []
