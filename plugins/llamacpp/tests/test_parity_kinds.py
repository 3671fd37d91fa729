"""Both choices of engine with what not every model has: images, ranks, adapters, drafts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.llamacpp.tests.kinds import write_reranker
from plugins.llamacpp.tests.test_parity import CHAT, GUIDE, TEXT, WHAT, send, told
from plugins.llamacpp.tests.test_peer import NEAR, choices
from plugins.llamacpp.tests.tiny_bert import RANK, Bert
from plugins.llamacpp.tests.tiny_model import write_model
from plugins.llamacpp.tests.tiny_parts import (
    picture,
    projector_pairs,
    projector_tensors,
    shown,
    write_adapter,
    write_gguf,
    write_projector,
    write_rows_model,
)
from plugins.llamacpp.tests.tiny_t5 import write_t5_encoder
from plugins.llamacpp.tests.workers import Worker, pair_of

pytestmark = pytest.mark.engine

KINDS = ("mlp", "gemma3", "qwen2vl_merger")
LOOK: dict[str, Any] = {
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "logprobs": True,
    "top_logprobs": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, and for each kind of projector one with a model beside it."""
    root = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        here = root / kind
        here.mkdir()
        write_projector(here / "mmproj.gguf", kind)
        path = here / "tiny.gguf"
        write_rows_model(path) if kind == "qwen2vl_merger" else write_model(path)
    write_adapter(root / "adapter.gguf", root / "mlp" / "tiny.gguf")
    odd = root / "odd"
    odd.mkdir()
    write_model(odd / "tiny.gguf")
    write_gguf(odd / "mmproj.gguf", projector_pairs("nonsense"), projector_tensors())
    write_reranker(root / "causal.gguf")
    write_t5_encoder(root / "t5.gguf")
    Bert(RANK, head=True).write(root / "bert.gguf")
    form = "[CLS] is {document} to [SEP] {query} [MASK]"
    Bert(RANK, head=True, form=form).write(root / "form.gguf")
    return root


def options(folder: Path) -> dict[str, Any]:
    """What differs for single models, by the names under which they are loaded here."""
    adapter, damaged = str(folder / "adapter.gguf"), folder / "damaged.gguf"
    write_gguf(damaged, projector_pairs(), {})
    return {
        "blind": {"projector": ""},
        "short": {"context_size": 60},
        "last": {"chat_template": "{{ messages[0].content }}"},
        "without": {"chat_template": "{{ 'x' }}"},
        "bos": {"chat_template": "<s>{{ messages[0].content }}!"},
        "adapted": {"adapters": [{"path": adapter, "scale": -0.5}]},
        "bad-adapter": {"adapters": [{"path": str(folder / "bert.gguf")}]},
        "bad-projector": {"projector": adapter},
        "damaged": {"projector": str(damaged)},
        "no-draft": {"draft": "nowhere.gguf"},
        "draft": {"draft": str(GUIDE)},
    }


@pytest.fixture(scope="module")
def pair(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """A worker of each engine, empty."""
    arguments = ["--settings", json.dumps({"slots": 1, "models": options(folder)})]
    with pair_of(arguments, tmp_path_factory.mktemp("logs")) as workers:
        yield workers


def load(pair: list[Worker], path: Path, name: str = "tiny") -> None:
    for worker in pair:
        answer = worker.load(path, name)
        assert answer.is_success, answer.text


def same(one: httpx.Response, other: httpx.Response) -> None:
    """Compare greedy answers, up to a choice between two that were all but equal."""
    assert one.status_code == 200, one.text
    assert other.status_code == 200, other.text
    own, theirs = one.json(), other.json()
    for name in ("prompt_tokens", "completion_tokens"):
        assert own["usage"][name] == theirs["usage"][name]
    found = choices(own["choices"][0]["logprobs"]["content"])
    text = b"".join(token for token, _ in found)
    peer = b"".join(token for token, _ in choices(theirs["choices"][0]["logprobs"]["content"]))
    assert min(len(text), len(peer)) > 16
    gaps = [gap for token, gap in found for _ in token]
    parts = (n for n, each in enumerate(zip(text, peer, strict=False)) if len({*each}) > 1)
    assert gaps[next(parts, len(gaps) - 1)] < NEAR or text[: len(peer)] == peer[: len(text)]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_seen_alike(pair: list[Worker], folder: Path, kind: str) -> None:
    load(pair, folder / kind / "tiny.gguf")
    for messages in (
        shown("look: ", picture(1), " what?"),
        shown("look: ", picture(2, 90, 50, "JPEG"), " what?"),
        shown(picture(1), " and ", picture(2), picture(3), "?"),
        shown("only words"),
    ):
        one, other = (worker.chat(messages=messages, **LOOK) for worker in pair)
        same(one, other)


def test_a_template_that_begins_the_text_itself(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "mlp" / "tiny.gguf", "bos")
    messages = shown("look: ", picture(1), " what?")
    one, other = (worker.chat(model="bos", messages=messages, **LOOK) for worker in pair)
    same(one, other)


def test_words_beside_an_image_are_never_control_tokens(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "mlp" / "tiny.gguf")
    counts = []
    for words in (" what<|assistant|>?", " what|assistant|?"):
        answers = [worker.chat(messages=shown(picture(1), words), **LOOK) for worker in pair]
        counts.append([each.json()["usage"]["prompt_tokens"] for each in answers])
    (own, theirs), (plain, also) = counts
    assert plain == also
    assert own == plain + 2
    assert theirs == own + 3 * (len("<|assistant|>") - 1)  # an invisible character between any two


def test_several_answers_to_an_image(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "mlp" / "tiny.gguf")
    fields: dict[str, Any] = {"messages": shown("look: ", picture(1), "?"), "n": 2, "max_tokens": 5}
    one, other = (worker.chat(temperature=0, **fields).json()["usage"] for worker in pair)
    assert one["prompt_tokens"] == other["prompt_tokens"]


def test_the_context_holds_image_and_answer(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "mlp" / "tiny.gguf", "short")
    for words, status in (("x", 200), ("x" * 40, 400), ("x" * 300, 400)):
        messages = shown(words, picture(1), "?")
        one, other = (
            worker.chat(model="short", messages=messages, ignore_eos=True, temperature=0)
            for worker in pair
        )
        assert (one.status_code, other.status_code) == (status, status)
        if status == 200:
            assert other.json()["choices"][0]["finish_reason"] == "length"
            # The last token need not be kept, but llama-server keeps it.
            assert one.json()["usage"]["total_tokens"] == 61
            assert other.json()["usage"]["total_tokens"] == 60
        else:
            assert one.json()["code"] == other.json()["code"] == -4
            assert one.json()["details"].keys() == other.json()["details"].keys()


@pytest.mark.parametrize("name", ["blind", "last", "without"])
def test_images_that_have_no_place(pair: list[Worker], folder: Path, name: str) -> None:
    load(pair, folder / "mlp" / "tiny.gguf", name)
    messages = shown("look: ", picture(1))
    one, other = (worker.chat(model=name, messages=messages) for worker in pair)
    assert one.status_code == other.status_code == 400
    assert told(one.json()) == told(other.json())


def test_a_projector_that_only_lies_there_and_is_no_use(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "odd" / "tiny.gguf")
    one, other = (worker.chat(messages=shown(picture(1), "?")) for worker in pair)
    assert one.status_code == other.status_code == 400
    assert told(one.json()) == told(other.json())
    assert all("no images: " in worker.stderr for worker in pair)
    assert all(worker.chat(max_tokens=2).is_success for worker in pair)


@pytest.mark.parametrize("name", ["bad-adapter", "bad-projector", "damaged"])
def test_files_that_do_not_go_with_a_model(pair: list[Worker], folder: Path, name: str) -> None:
    one, other = (worker.load(folder / "mlp" / "tiny.gguf", name) for worker in pair)
    assert one.json()["code"] == other.json()["code"] == -4 or name == "damaged"
    assert one.status_code == other.status_code
    if name != "damaged":  # llama.cpp's own words are in that one
        assert told(one.json()) == told(other.json())


def test_adapters_work_alike(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "mlp" / "tiny.gguf", "adapted")
    one, other = (worker.chat(model="adapted", **LOOK) for worker in pair)
    same(one, other)


@pytest.mark.parametrize("name", ["bert", "form", "causal"])
def test_scores_are_the_same(pair: list[Worker], folder: Path, name: str) -> None:
    load(pair, folder / f"{name}.gguf")
    documents = [f"{word} number {word}" for word in ("one", "two", "three")] * 7 + ["", "x y z"]
    body = {"model": "tiny", "query": "number two", "documents": documents}
    one, other = (worker.client.post("/v1/rerank", json=body).json() for worker in pair)
    assert one["usage"] == other["usage"]
    scores = [
        {each["index"]: each["relevance_score"] for each in answer["results"]}
        for answer in (one, other)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=5e-3)


def test_what_somebody_wrote_is_no_control_token_of_a_form(
    pair: list[Worker], folder: Path
) -> None:
    load(pair, folder / "causal.gguf")
    counts = []
    for query in ("a<|user|>{document}", "a|user|{docum}"):
        body = {"model": "tiny", "query": query, "documents": ["b" * 30]}
        answers = [worker.client.post("/v1/rerank", json=body).json() for worker in pair]
        counts.append([each["usage"]["prompt_tokens"] for each in answers])
    (own, theirs), (plain, also) = counts
    assert plain == also
    assert own == plain + 5
    between = len("<|user|>") - 1 + len("{document}") - 1
    assert theirs == own + 3 * between


def test_llama_server_refuses_what_it_gets_wrong(pair: list[Worker], folder: Path) -> None:
    load(pair, folder / "bert.gguf")
    own, theirs = (worker.load(folder / "t5.gguf", "t5") for worker in pair)
    assert own.is_success
    assert "engine = 'python'" in theirs.json()["message"]
    assert pair[1].client.get("/health").json()["model"] == "tiny"


def test_a_draft_model_changes_no_answer(pair: list[Worker]) -> None:
    own, theirs = pair
    assert "engine = 'llama-server'" in own.load(GUIDE, "draft").json()["message"]
    missing = theirs.load(GUIDE, "no-draft")
    assert "'models.no-draft.draft'" in missing.json()["message"]
    assert own.load(GUIDE, "guide").is_success
    assert theirs.load(GUIDE, "draft").is_success
    for path, fields in (
        (CHAT, {}),
        (CHAT, {"max_tokens": 7}),
        (CHAT, {"stop": ["run", "."]}),
        (CHAT, {"ignore_eos": True, "max_tokens": 150}),
        (CHAT, {"grammar": 'root ::= ("yes" | "no") [0-9]'}),
        (CHAT, {"messages": [*WHAT, {"role": "assistant", "content": "A program."}, *WHAT]}),
        (TEXT, {"prompt": "AI Playground is"}),
    ):
        one = told(send(own, path, fields).json())
        other = told(send(theirs, path, {**fields, "model": "draft"}).json())
        assert {**other, "model": "guide"} == one


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_at_the_end_is_dropped(pair: list[Worker], stream: bool) -> None:
    load(pair, GUIDE, "guide")
    answers: list[list[str]] = []
    for limit in range(1, 14):
        fields = {"grammar": 'root ::= "é👍日本👍"', "max_tokens": limit, "stream": stream}
        answers.append([text_of(send(worker, CHAT, fields), stream) for worker in pair])
    assert all(one == other for one, other in answers)
    texts = {one for one, _ in answers}
    assert {"é", "é👍", "é👍日"} <= texts
    assert not any("\ufffd" in text for text in texts)


def text_of(answer: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if "choices" in line]
    found = [json.loads(line)["choices"] for line in lines]
    return "".join(each[0]["delta"].get("content") or "" for each in found if each)
