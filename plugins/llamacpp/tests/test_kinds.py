"""Recurrent, hybrid and sliding-window models among many conversations, on the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.kinds import (
    CONTEXT,
    write_gemma,
    write_lfm2,
    write_mamba,
    write_rwkv,
)
from plugins.llamacpp.tests.test_batching import (
    NEAR,
    complete,
    gap_where_they_part,
    leave,
    metric,
    text,
)
from plugins.llamacpp.tests.workers import Launch, Worker

pytestmark = pytest.mark.engine

KINDS = {"mamba": write_mamba, "rwkv6": write_rwkv, "lfm2": write_lfm2, "gemma3": write_gemma}
CASES = [
    "mamba",
    "lfm2",
    "gemma3",
    pytest.param("rwkv6", marks=pytest.mark.full),
]


@pytest.fixture(scope="module", params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def start(
    kind: str, launch: Launch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Worker]:
    write: Callable[[Path], Path] = KINDS[kind]
    path = write(tmp_path_factory.mktemp("kinds") / f"{kind}.gguf")

    def start(**settings: Any) -> Worker:
        words = ("--settings", json.dumps(settings)) if settings else ()
        return launch("--model", str(path), "--name", "tiny", *words)

    return start


@pytest.fixture(scope="module")
def shared(start: Callable[..., Worker]) -> Worker:
    return start()


@pytest.fixture(scope="module")
def single(start: Callable[..., Worker]) -> Worker:
    """A worker whose conversations lose their slot to the next."""
    return start(slots=1)


@pytest.fixture(scope="module")
def forgetful(start: Callable[..., Worker]) -> Worker:
    """A worker that, asked anything in between, computes all of a prompt."""
    return start(slots=1, prompt_cache=0)


def anew(worker: Worker, prompt: str) -> list[tuple[list[int], float]]:
    complete(worker, "!", max_tokens=1)
    return choices(worker, prompt)


def choices(worker: Worker, prompt: str, limit: int = 40) -> list[tuple[list[int], float]]:
    """Return each token's bytes, and how far the likeliest was before the next."""
    answer = complete(worker, prompt, max_tokens=limit, ignore_eos=True, logprobs=2)
    found = answer["choices"][0]["logprobs"]
    tops = [sorted(top.values()) for top in found["top_logprobs"]]
    return [
        (list(token.encode()), top[-1] - top[-2] if len(top) > 1 else 0.0)
        for token, top in zip(found["tokens"], tops, strict=True)
    ]


def conversed(worker: Worker, prompt: str, limit: int = 40) -> list[tuple[list[int], float]]:
    """Return each token's bytes, and how far the likeliest was before the next.

    Asked as a conversation, which alone tells the bytes: many of these tokens are parts of
    characters, whose texts are all the same.
    """
    answer = worker.chat(
        prompt, temperature=0, max_tokens=limit, ignore_eos=True, logprobs=True, top_logprobs=2
    ).json()
    found = []
    for entry in answer["choices"][0]["logprobs"]["content"]:
        first, second = (each["logprob"] for each in entry["top_logprobs"])
        found.append((entry["bytes"], first - second))
    return found


def same(one: list[tuple[list[int], float]], other: list[tuple[list[int], float]]) -> bool:
    """Whether they are the same; if not, they part at a near-tie.

    Where the two likeliest tokens have one text (parts of characters have), the gap is told as 0:
    there they may have parted without its being seen.
    """
    gap = gap_where_they_part(one, other)
    if gap is not None:
        parted = [a[0] == b[0] for a, b in zip(one, other, strict=True)].index(False)
        assert gap < NEAR or not all(each for _, each in one[:parted])
    return gap is None


def test_answers_are_those_that_each_request_gets_alone(shared: Worker) -> None:
    prompts = [f"{number} " + "so on " * (3 * number) for number in range(12)]
    alone = [conversed(shared, prompt) for prompt in prompts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda prompt: conversed(shared, prompt), prompts))
    assert sum(map(same, alone, together)) > 9
    assert "Traceback" not in shared.stderr


def said(worker: Worker, prompt: str) -> str:
    """Return an answer of plain letters, which the next prompt can repeat token for token."""
    return text(complete(worker, prompt, max_tokens=20, grammar="root ::= [a-z]+"))


def test_a_conversation_goes_on_where_it_ended(shared: Worker, forgetful: Worker) -> None:
    first = "a conversation " * 5
    longer = first + said(shared, first) + " and then? "
    again = complete(shared, longer, max_tokens=1)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(first)
    same(choices(shared, longer), anew(forgetful, longer))


def test_a_conversation_that_lost_its_slot_goes_on(single: Worker, forgetful: Worker) -> None:
    first = "another conversation " * 4
    longer = first + said(single, first) + " and then? "
    other = choices(single, "x" * 60)
    before = metric(single, "restored_tokens")
    again = choices(single, longer)
    assert metric(single, "restored_tokens") >= before + len(first)
    same(choices(single, "x" * 60), other)
    same(again, anew(forgetful, longer))


def test_what_cannot_be_taken_back_is_read_again(single: Worker, forgetful: Worker) -> None:
    prompt = "".join(chr(97 + number * 7 % 26) for number in range(60))
    first = anew(forgetful, prompt)
    same(choices(single, prompt), first)
    complete(single, "y" * 60)
    same(choices(single, prompt), first)
    same(choices(single, prompt[:40]), anew(forgetful, prompt[:40]))


def test_the_same_prompt_twice_and_one_that_is_shorter(shared: Worker) -> None:
    prompt = "the same words " * 8
    first = choices(shared, prompt)
    assert same(choices(shared, prompt), first)
    shorter = choices(shared, prompt[:70])
    assert same(choices(shared, prompt), first)
    assert same(choices(shared, prompt[:70]), shorter)


def test_who_leaves_early_disturbs_nobody(shared: Worker) -> None:
    body = {"model": "tiny", "prompt": "x " * 90, "max_tokens": 10**6, "ignore_eos": True}
    alone = choices(shared, "stay " * 10)
    with ThreadPoolExecutor(8) as pool:
        gone = [pool.submit(leave, shared, {**body, "seed": n}, n) for n in range(5)]
        stayed = [pool.submit(choices, shared, "stay " * 10) for _ in range(3)]
    assert all(each.result() is None for each in gone)
    for each in stayed:
        same(each.result(), alone)
    shared.wait_idle()
    same(choices(shared, "stay " * 10), alone)


def test_each_answer_may_use_the_whole_context(shared: Worker) -> None:
    def ask(letter: str) -> tuple[str, int, str]:
        prompt = letter * (CONTEXT - 40)
        answer = complete(shared, prompt, max_tokens=10**6, ignore_eos=True)
        choice = answer["choices"][0]
        return choice["finish_reason"], answer["usage"]["total_tokens"], choice["text"]

    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(ask, "abcdefghij"))
    assert {each[:2] for each in together} == {("length", CONTEXT + 1)}
    assert len({each[2] for each in together}) > 3


def test_several_answers_to_one_prompt(shared: Worker) -> None:
    answer = complete(shared, "Hello", n=4, temperature=1.5, seed=3, ignore_eos=True)
    again = complete(shared, "Hello", n=4, temperature=1.5, seed=3, ignore_eos=True)
    texts = [each["text"] for each in answer["choices"]]
    assert len(set(texts)) == 4
    assert len(again["choices"]) == 4


def test_memory_for_fewer_than_there_are_slots(start: Callable[..., Worker]) -> None:
    worker = start(context_size=CONTEXT, slots=4, prompt_cache=1)
    prompts = [f"{number} " + "long " * 30 for number in range(8)]
    alone = [conversed(worker, prompt, 60) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: conversed(worker, prompt, 60), prompts))
    for one, other in zip(alone, together, strict=True):
        same(one, other)
    worker.wait_idle()
