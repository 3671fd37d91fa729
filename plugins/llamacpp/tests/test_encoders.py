"""Models that read in both directions: vectors, and scores of documents for a query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from plugins.llamacpp.tests.kinds import CONTEXT, write_reranker
from plugins.llamacpp.tests.tiny_bert import CLS, LAST, MEAN, RANK, Bert, word_tokens
from plugins.llamacpp.tests.tiny_t5 import vector, write_t5_encoder
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch, Worker

from aiplayground.errors import InvalidParameters
from aiplayground_llamacpp.ranking import Frame, pair_tokens

pytestmark = pytest.mark.engine

ENGINES = BOTH
PYTHON_ALONE = {"test_a_model_that_only_encodes"}

TEXTS = ["a small house", "x", "the quick brown fox jumps over the lazy dog", "zebra " * 30]
DOCUMENTS = [f"{word} number {word}" for word in ("one", "two", "three", "four")] * 5 + ["x"]

Reload = Callable[[Bert], Worker]


@pytest.fixture(scope="module")
def reload(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Reload:
    """Load another model into one worker, whose name is `tiny` then."""
    worker = launch()
    folder = tmp_path_factory.mktemp("bert")

    def load(model: Bert) -> Worker:
        path = model.write(folder / f"{len(list(folder.iterdir()))}.gguf")
        assert worker.load(path, "tiny").is_success, worker.stderr
        return worker

    return load


def embed(worker: Worker, *texts: str) -> httpx.Response:
    return worker.client.post("/v1/embeddings", json={"model": "tiny", "input": list(texts)})


def rerank(worker: Worker, query: str, *documents: str, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "query": query, "documents": documents, **fields}
    return worker.client.post("/v1/rerank", json=body)


@pytest.mark.parametrize("pooling", [MEAN, CLS, LAST])
def test_vectors_are_what_the_model_says(reload: Reload, pooling: int) -> None:
    model = Bert(pooling)
    answer = embed(reload(model), *TEXTS).json()
    for text, each in zip(TEXTS, answer["data"], strict=True):
        assert np.dot(each["embedding"], model.vector(text)) > 0.9999
    letters = sum(len(text.replace(" ", "")) for text in TEXTS)
    assert answer["usage"]["prompt_tokens"] == letters + 2 * len(TEXTS)


def test_a_text_may_fill_the_context_but_not_more(reload: Reload) -> None:
    worker, model = reload(Bert(MEAN)), Bert(MEAN)
    full = "a " * (CONTEXT - 2)
    vector = embed(worker, full).json()["data"][0]["embedding"]
    assert np.dot(vector, model.vector(full)) > 0.9999
    assert embed(worker, full + "a").json()["code"] == -4


def test_a_model_that_only_encodes(launch: Launch, tmp_path: Path) -> None:
    path = write_t5_encoder(tmp_path / "t5.gguf")
    worker = launch("--model", str(path), "--name", "tiny")
    texts = ["house", "x", "thequickbrownfoxjumpsoverthelazydog", "zebra" * 30]
    for text, each in zip(texts, embed(worker, *texts).json()["data"], strict=True):
        assert np.dot(each["embedding"], vector(text)) > 0.9999
    assert worker.chat().status_code == 400


@pytest.mark.parametrize(
    "model",
    [
        Bert(RANK, head=True),
        Bert(RANK, head=True, dense=True),
        Bert(RANK, head=True, twice=True),
        Bert(None, head=True),
    ],
)
def test_scores_are_the_classifiers(reload: Reload, model: Bert) -> None:
    worker = reload(model)
    answer = rerank(worker, "number two", *DOCUMENTS).json()
    expected = [model.score("number two", document) for document in DOCUMENTS]
    results = answer["results"]
    scores = {each["index"]: each["relevance_score"] for each in results}
    assert [scores[n] for n in range(len(DOCUMENTS))] == pytest.approx(expected, abs=5e-3)
    order = [each["relevance_score"] for each in results]
    assert order == sorted(order, reverse=True)
    assert len(set(expected)) > 3
    pairs = [12 + len(each.replace(" ", "")) + model.twice for each in DOCUMENTS]
    assert answer["usage"] == {"prompt_tokens": sum(pairs), "total_tokens": sum(pairs)}


def test_the_best_documents_with_their_texts(reload: Reload) -> None:
    worker = reload(Bert(RANK, head=True))
    every = rerank(worker, "one", *DOCUMENTS[:4]).json()["results"]
    best = rerank(worker, "one", *DOCUMENTS[:4], top_n=2, return_documents=True).json()["results"]
    assert [each["index"] for each in best] == [each["index"] for each in every[:2]]
    assert best[0]["document"] == {"text": DOCUMENTS[best[0]["index"]]}
    assert "document" not in every[0]


def test_a_model_that_ranks_does_nothing_else(reload: Reload) -> None:
    worker = reload(Bert(RANK, head=True))
    for answer in (worker.chat(), embed(worker, "a text")):
        assert (answer.status_code, answer.json()["code"]) == (400, -4)
        assert "ranks documents" in answer.json()["message"]


def test_models_that_do_not_rank_say_so(reload: Reload, worker: Worker) -> None:
    for other in (reload(Bert(MEAN)), worker):
        answer = rerank(other, "a", "b")
        assert (answer.status_code, answer.json()["code"]) == (400, -4)
        assert "Choose a reranker model" in answer.json()["message"]


def test_what_cannot_be_ranked(reload: Reload) -> None:
    worker = reload(Bert(RANK, head=True))
    long = rerank(worker, "a", "fine", "b " * CONTEXT)
    assert long.status_code == 400
    assert long.json()["details"]["field"] == "documents[1]"
    assert rerank(worker, "a " * CONTEXT, "b").status_code == 400
    assert rerank(worker, "", "b").status_code == 400
    assert rerank(worker, "a", "").is_success
    assert rerank(worker, "a").status_code == 400
    assert worker.client.get("/health").json()["active"] == 0


def test_a_models_own_form_of_a_pair(reload: Reload) -> None:
    model = Bert(RANK, head=True, form="[CLS] is {document} to [SEP] {query} [MASK]")
    results = rerank(reload(model), "one", "two").json()["results"]
    parts = [[2], word_tokens("is two to"), [3], word_tokens("one"), [4]]
    expected = model.score_of([token for part in parts for token in part])
    assert results[0]["relevance_score"] == pytest.approx(expected, abs=2e-3)


def test_a_causal_model_ranks(launch: Launch, tmp_path: Path) -> None:
    worker = launch("--model", str(write_reranker(tmp_path / "rank.gguf")), "--name", "tiny")
    together = rerank(worker, "which?", *DOCUMENTS).json()["results"]
    assert all(0 < each["relevance_score"] < 1 for each in together)
    for each in together[:6]:
        alone = rerank(worker, "which?", DOCUMENTS[each["index"]]).json()["results"][0]
        assert alone["relevance_score"] == pytest.approx(each["relevance_score"], abs=2e-3)
    assert len({round(each["relevance_score"], 3) for each in together}) > 2


class Letters:
    """A tokenizer of one token for each letter, and one for `<x>`."""

    bos_text = ""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if parse_special:
            text = text.replace("<x>", "\0")
        return [ord(letter) for letter in text]

    def control_texts(self) -> tuple[str, ...]:
        return ("<x>",)


def test_pairs_become_tokens() -> None:
    frame = Frame((1,), (2, 3), (2,))
    pairs = pair_tokens(Letters(), frame, "q", ["d", ""], 9)
    assert pairs == [[1, 113, 2, 3, 100, 2], [1, 113, 2, 3, 2]]
    form = "<x>{query}{document}{query}"
    assert pair_tokens(Letters(), form, "q", ["{query}"], 99) == [[0, 113, *b"{query}", 113]]
    assert pair_tokens(Letters(), form, "<x>", ["d"], 99) == [[0, *b"<x>d<x>"]]
    with pytest.raises(InvalidParameters, match="Divide the document"):
        pair_tokens(Letters(), frame, "q", ["dddddd"], 9)
