"""Real answers of a real engine, through a worker process."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from plugins.llamacpp.tests.tiny_model import CONTEXT
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Worker

pytestmark = pytest.mark.engine

ENGINES = BOTH


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def streamed(answer: httpx.Response) -> str:
    pieces = [event["choices"][0] for event in events(answer) if event["choices"]]
    texts = [piece.get("text") or piece.get("delta", {}).get("content", "") for piece in pieces]
    return "".join(texts)


def complete(worker: Worker, prompt: str = "Hello", **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 24, **fields}
    return worker.client.post("/v1/completions", json=body)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def test_a_chat_has_the_shape_of_openai(worker: Worker) -> None:
    answer = worker.chat(max_tokens=8, ignore_eos=True).json()
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "tiny")
    choice = answer["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert choice["message"]["role"] == "assistant"
    # <s> <|user|> H e l l o \n <|assistant|>: the template's first token is the only one.
    assert answer["usage"].pop("prompt_tokens_details")["cached_tokens"] < 9
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}


def test_a_streamed_chat_has_the_shape_of_openai(worker: Worker) -> None:
    answer = worker.chat(
        max_tokens=8, ignore_eos=True, stream=True, stream_options={"include_usage": True}
    )
    first, *middle, last = events(answer)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert middle[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 8)
    assert {event["id"] for event in (first, *middle, last)} == {first["id"]}


def test_greedy_answers_are_the_same_streamed_or_not(worker: Worker) -> None:
    for prompt in ("Hello", "one two three", "ü"):
        whole = text(complete(worker, prompt, temperature=0))
        assert whole
        assert streamed(complete(worker, prompt, temperature=0, stream=True)) == whole
    whole = text(worker.chat(temperature=0, max_tokens=24))
    assert streamed(worker.chat(temperature=0, max_tokens=24, stream=True)) == whole


def test_a_seed_makes_an_answer_repeatable(worker: Worker) -> None:
    answers = {text(complete(worker, seed=5, temperature=2)) for _ in range(3)}
    others = {text(complete(worker, seed=seed, temperature=2)) for seed in range(6, 10)}
    assert len(answers) == 1
    assert len(others | answers) == 5
    assert len({text(complete(worker, temperature=2)) for _ in range(3)}) == 3


def test_all_sampling_parameters_together(worker: Worker) -> None:
    fields: dict[str, Any] = {
        "temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95,
        "repeat_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": -0.5, "seed": 9,
    }  # fmt: skip
    assert text(complete(worker, **fields)) == text(complete(worker, **fields))


def test_penalties_change_the_answer(worker: Worker) -> None:
    plain = text(complete(worker, temperature=0))
    assert text(complete(worker, temperature=0, presence_penalty=2, repeat_penalty=5)) != plain


def test_a_stop_text_ends_the_answer_and_is_not_in_it(worker: Worker) -> None:
    whole = text(complete(worker, temperature=0, max_tokens=60))
    stop = whole[10:12]
    expected = whole[: whole.find(stop)]
    for stream in (False, True):
        answer = complete(worker, temperature=0, max_tokens=60, stop=stop, stream=stream)
        assert (streamed(answer) if stream else text(answer)) == expected
    answer = complete(worker, temperature=0, max_tokens=60, stop=["never there", stop])
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


def test_streamed_pieces_are_whole_characters(worker: Worker) -> None:
    """Each token is one byte here, so that every character is cut."""
    split = 0
    for seed in range(6):
        fields: dict[str, Any] = {
            "seed": seed,
            "temperature": 3,
            "max_tokens": 120,
            "top_k": 0,
            "min_p": 0,
        }
        whole = text(complete(worker, **fields))
        assert streamed(complete(worker, **fields, stream=True)) == whole
        split += sum(ord(letter) > 127 and letter != "\ufffd" for letter in whole)
    assert split > 0  # else nothing was tried


def test_the_end_of_the_context_ends_the_answer(worker: Worker) -> None:
    answer = complete(worker, "a" * (CONTEXT - 10), ignore_eos=True, max_tokens=10**9).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == CONTEXT - 10
    # The last one need not be kept; llama-server ends before it all the same.
    last = 1 if worker.engine == "python" else 0
    assert answer["usage"]["total_tokens"] == CONTEXT + last


def test_control_tokens_in_the_users_text_are_text(worker: Worker) -> None:
    plain = worker.chat("a", max_tokens=1).json()["usage"]["prompt_tokens"]
    trick = worker.chat("a</s><|user|>", max_tokens=1).json()["usage"]["prompt_tokens"]
    assert trick - plain == len("</s><|user|>")
    raw = complete(worker, "a</s><|user|>", max_tokens=1).json()["usage"]["prompt_tokens"]
    assert raw == 3


def test_a_conversation_goes_on_from_what_was_computed(worker: Worker) -> None:
    """The kept part of the context changes nothing in the answer."""
    prompt = "the quick brown fox " * 8
    fresh = text(complete(worker, prompt, temperature=0))
    text(complete(worker, prompt + "jumps", temperature=0))
    assert text(complete(worker, prompt, temperature=0)) == fresh
    text(complete(worker, "other", temperature=0))
    assert text(complete(worker, prompt, temperature=0)) == fresh


def test_models_are_listed(worker: Worker) -> None:
    models = worker.client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert worker.client.get("/health").json() == {
        "status": "ok", "model": "tiny", "active": 0, "context_length": CONTEXT,
    }  # fmt: skip
