"""Many conversations at once, on a real engine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from plugins.llamacpp.tests.tiny_model import CONTEXT
from plugins.llamacpp.tests.workers import Launch, Worker

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"enum": [1, 2]}},
    "required": ["name", "n"],
    "additionalProperties": False,
}


def complete(worker: Worker, prompt: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 24, "temperature": 0, **fields}
    answer = worker.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["text"])


def metric(worker: Worker, name: str) -> float:
    for line in worker.client.get("/metrics").text.splitlines():
        if line.startswith(f"aiplayground_engine_{name} "):
            return float(line.split()[1])
    raise AssertionError(f"there is no metric {name}")


def leave(worker: Worker, body: dict[str, Any], pieces: int) -> None:
    body = {**body, "stream": True}
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        stream = answer.iter_bytes()
        for _ in range(pieces):
            next(stream, None)


NEAR = 0.05
"""Difference of two logits that a batch of another size may turn around: sums are then rounded
otherwise (measured on this model: up to 0.01)."""


def with_logprobs(worker: Worker, prompt: str, limit: int) -> list[tuple[list[int], float]]:
    """Return each token's bytes, and how far the likeliest was before the next."""
    answer = worker.chat(
        prompt, temperature=0, max_tokens=limit, ignore_eos=True, logprobs=True, top_logprobs=2
    ).json()
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == limit
    gaps = [e["top_logprobs"][0]["logprob"] - e["top_logprobs"][1]["logprob"] for e in entries]
    return [(entry["bytes"], gap) for entry, gap in zip(entries, gaps, strict=True)]


def gap_where_they_part(
    one: list[tuple[list[int], float]], other: list[tuple[list[int], float]]
) -> float | None:
    """Return how near the choice was at the first token that differs; None if none does."""
    return next((a[1] for a, b in zip(one, other, strict=True) if a[0] != b[0]), None)


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "apart"])
def either(launch: Launch, model_path: Path, request: pytest.FixtureRequest) -> Worker:
    """A worker whose slots share their memory, and one whose slots do not."""
    settings = json.dumps({"kv_unified": request.param})
    return launch("--model", str(model_path), "--name", "tiny", "--settings", settings)


def test_answers_are_those_that_each_request_gets_alone(either: Worker) -> None:
    worker = either
    prompts = [f"{number} " + "so " * (number % 9) for number in range(40)]
    limits = [random.Random(number).randint(1, 60) for number in range(40)]

    def ask(number: int) -> list[tuple[list[int], float]]:
        return with_logprobs(worker, prompts[number], limits[number])

    alone = [ask(number) for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        together = list(pool.map(ask, range(40)))
    same = 0
    for one, other in zip(alone, together, strict=True):
        gap = gap_where_they_part(one, other)
        same += gap is None
        assert gap is None or gap < NEAR
    assert same > 30


def actions(worker: Worker, source: random.Random) -> Callable[[], None]:
    """Return one of the things that clients do; each checks its own answer."""
    number = source.randrange(10)
    prompt = f"{number} " + "word " * number
    limit, pieces = source.randint(1, 80), source.randint(0, 4)
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 10**6, "ignore_eos": True}

    def whole() -> None:
        answer = complete(worker, prompt, max_tokens=limit, ignore_eos=True)
        assert answer["usage"]["completion_tokens"] == limit

    def stopped() -> None:
        stop = text(complete(worker, prompt, max_tokens=40))[5:7]
        if stop:
            answer = complete(worker, prompt, max_tokens=40, stop=[stop])
            assert stop not in text(answer)

    def schema() -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        answer = complete(worker, prompt, max_tokens=400, response_format=form, temperature=1)
        assert set(json.loads(text(answer))) == {"name", "n"}

    def impatient() -> None:
        with pytest.raises(httpx.ReadTimeout):
            worker.client.post("/v1/completions", json=body, timeout=0.01)

    def several() -> None:
        answer = complete(worker, prompt, n=3, max_tokens=limit, ignore_eos=True, temperature=1)
        assert answer["usage"]["completion_tokens"] == 3 * limit

    return source.choice(
        [whole, whole, stopped, schema, impatient, several, lambda: leave(worker, body, pieces)]
    )


def storm(worker: Worker, clients: int, rounds: int, seed: int) -> None:
    def client(number: int) -> None:
        source = random.Random(seed * 1000 + number)
        for _ in range(rounds):
            actions(worker, source)()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))


def test_a_storm_of_clients_leaves_no_trace(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"context_size": 2000, "prompt_cache": 1})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    process = psutil.Process(worker.process.pid)
    before = text(complete(worker, "Hello"))
    storm(worker, clients=48, rounds=6, seed=1)
    worker.wait_idle()
    first = process.memory_info().rss
    for seed in range(2, 4):
        storm(worker, clients=48, rounds=6, seed=seed)
    worker.wait_idle()
    assert process.memory_info().rss - first < 16 * 2**20
    assert text(complete(worker, "Hello")) == before
    assert worker.process.poll() is None
    assert "Traceback" not in worker.stderr


def test_a_prompt_that_was_read_is_not_read_again(launch: Launch, model_path: Path) -> None:
    worker = launch("--model", str(model_path), "--name", "tiny")
    prompt = "abcdefgh" * 40
    fresh = complete(worker, prompt)
    assert fresh["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    again = complete(worker, prompt)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt) - 1
    assert text(again) == text(fresh)
    other = complete(worker, prompt + "!")
    assert other["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt)
    assert metric(worker, "cached_tokens") == 2 * len(prompt) - 1


@pytest.mark.parametrize("unified", [True, False])
def test_what_many_prompts_have_in_common_is_read_once(
    launch: Launch, model_path: Path, unified: bool
) -> None:
    settings = json.dumps({"slots": 16, "kv_unified": unified})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    common = "system prompt " * 20

    def ask(number: int) -> str:
        return text(complete(worker, f"{common}{number}"))

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(16)))
    assert metric(worker, "prompt_tokens") + metric(worker, "cached_tokens") >= 16 * len(common)
    assert metric(worker, "prompt_tokens") < 2 * len(common)
    assert [ask(number) for number in range(16)] == together


def test_conversations_that_lost_their_slot_come_back_from_main_memory(
    launch: Launch, model_path: Path
) -> None:
    settings = json.dumps({"slots": 2})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    prompts = [f"{number}: " + "a long conversation " * 10 for number in range(6)]
    fresh = [text(complete(worker, prompt)) for prompt in prompts]
    assert metric(worker, "prompt_cache_entries") >= 4
    again = [complete(worker, prompt) for prompt in prompts]
    assert [text(answer) for answer in again] == fresh
    found = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in again]
    assert found == [len(prompt) - 1 for prompt in prompts]
    assert metric(worker, "restored_tokens") >= 4 * len(prompts[0])


def test_the_prompt_cache_can_be_turned_off(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"slots": 1, "prompt_cache": 0})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    prompt = "a long conversation " * 10
    for asked in (prompt, "x" * 50):
        complete(worker, asked)
    last = complete(worker, prompt)
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert metric(worker, "prompt_cache_bytes") == 0


def test_each_answer_may_use_the_whole_context(either: Worker) -> None:
    worker = either

    def ask(letter: str) -> tuple[str, int]:
        prompt = letter * (CONTEXT - 60)
        answer = complete(worker, prompt, max_tokens=10**6, ignore_eos=True)
        return answer["choices"][0]["finish_reason"], answer["usage"]["total_tokens"]

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, "abcdefghijkl")) == {("length", CONTEXT + 1)}


def test_several_answers_to_one_prompt(worker: Worker) -> None:
    fields: dict[str, Any] = {"n": 5, "temperature": 1.5, "seed": 11, "ignore_eos": True}
    answer = complete(worker, "Hello", **fields)
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == list(range(5))
    assert len(set(texts)) == 5
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["completion_tokens"] == 5 * 24


def test_more_answers_than_slots(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"slots": 2})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    answer = complete(worker, "Hello", n=16, temperature=2, ignore_eos=True)
    assert len({choice["text"] for choice in answer["choices"]}) == 16
    worker.wait_idle()


def test_log_probabilities(worker: Worker) -> None:
    answer = worker.chat(
        temperature=0, max_tokens=6, logprobs=True, top_logprobs=3, ignore_eos=True
    ).json()
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == 6
    for entry in entries:
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry["logprob"] == values[0] < 0  # greedy takes the likeliest
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
    everything = worker.chat(max_tokens=1, logprobs=True, top_logprobs=0).json()
    assert everything["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_a_bias_forces_and_forbids(worker: Worker) -> None:
    letter = ord("A") - ord("!")  # the vocabulary's letters begin with GPT-2's printable ones
    forced = complete(worker, "Hello", logit_bias={str(letter): 100}, max_tokens=5)
    token = text(forced)
    assert len(set(token)) == 1
    plain = complete(worker, "Hello", max_tokens=40, ignore_eos=True, logprobs=0)
    first = plain["choices"][0]["logprobs"]["tokens"]
    assert len(first) == 40
    everything_else = {str(n): -100 for n in range(256) if n != letter}
    only = complete(worker, "Hello", logit_bias=everything_else, max_tokens=5, ignore_eos=True)
    assert set(text(only)) == set(token)


@pytest.mark.parametrize("temperature", [0, 0.8, 3])
def test_answers_follow_a_grammar(worker: Worker, temperature: float) -> None:
    choice = 'root ::= ("yes" | "no" | "grüße") " " [0-9]{3}'
    for seed in range(4):
        fields = {"grammar": choice, "temperature": temperature, "seed": seed}
        answer = complete(worker, "Hello", **fields)
        word, _, number = text(answer).partition(" ")
        assert word in ("yes", "no", "grüße")
        assert len(number) == 3
        assert number.isdecimal()
        assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_answers_follow_a_schema(worker: Worker, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    for seed in range(5):
        answer = worker.chat(
            max_tokens=300, response_format=form, temperature=1.5, seed=seed, stream=stream
        )
        if stream:
            lines = [each for each in answer.text.split("\n\n") if each.startswith("data: {")]
            events = [json.loads(line.removeprefix("data: ")) for line in lines]
            content = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
        else:
            content = answer.json()["choices"][0]["message"]["content"]
        value = json.loads(content)
        assert set(value) == {"name", "n"}
        assert value["n"] in (1, 2)
        # A model of single bytes may break off a character, which then counts for more.
        assert len(value["name"].replace("\ufffd", "")) <= 8


def test_a_grammar_that_no_token_can_follow_ends_the_answer(worker: Worker) -> None:
    nothing = {str(token): -100 for token in range(256)}
    answer = complete(worker, "Hello", grammar='root ::= "x"+', logit_bias=nothing)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert text(answer) == ""
    assert worker.chat(max_tokens=1).is_success


def test_one_bad_grammar_is_no_one_elses_error(worker: Worker) -> None:
    def ask(number: int) -> int:
        body: dict[str, Any] = {"model": "tiny", "prompt": "Hello", "max_tokens": 60}
        if number % 2:
            body["grammar"] = "root ::= nowhere"
        return worker.client.post("/v1/completions", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(32))) == [200, 400] * 16


def test_much_that_is_idle_moves_to_main_memory_and_is_found_there(
    launch: Launch, model_path: Path
) -> None:
    worker = launch("--model", str(model_path), "--name", "tiny")
    prompts = [f"{number}: " + "a long conversation " * 12 for number in range(7)]
    fresh = [text(complete(worker, prompt)) for prompt in prompts]
    kept = metric(worker, "prompt_cache_entries")
    assert kept >= 4  # although there was a free slot for each
    assert [text(complete(worker, prompt)) for prompt in prompts] == fresh
    assert metric(worker, "prompt_tokens") < sum(map(len, prompts)) + 7 * 2


def test_what_is_idle_stays_where_slots_have_their_own_memory(
    launch: Launch, model_path: Path
) -> None:
    settings = json.dumps({"kv_unified": False, "prompt_cache": 0})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    prompts = [f"{number}: " + "a long conversation " * 12 for number in range(7)]
    fresh = [text(complete(worker, prompt)) for prompt in prompts]
    assert [text(complete(worker, prompt)) for prompt in prompts] == fresh
    assert metric(worker, "cached_tokens") >= sum(map(len, prompts)) - 7


def test_the_rest_of_a_conversation_stays_when_another_begins_like_it(
    launch: Launch, model_path: Path
) -> None:
    settings = json.dumps({"slots": 1})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    common, long = "system prompt " * 5, "a long conversation " * 15
    complete(worker, common + long)
    complete(worker, "x" * 300)  # takes the slot: the conversation goes to main memory
    begun = complete(worker, common + "other")
    assert begun["usage"]["prompt_tokens_details"]["cached_tokens"] == len(common)
    again = complete(worker, common + long)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(common + long) - 1
