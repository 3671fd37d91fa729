"""OpenAI's own Python client against the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch, Worker

ENGINES = BOTH
USER: Any = [{"role": "user", "content": "Hello"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
TOOLS: Any = [{"type": "function", "function": {"name": "register", "parameters": SCHEMA}}]


@pytest.fixture
def client(worker: Worker) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{worker.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": USER, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True))
    text = "".join(each.choices[0].delta.content or "" for each in chunks)
    assert whole.choices[0].message.content == text
    assert whole.choices[0].message.tool_calls is None


def test_several_answers_with_a_seed_are_several_and_the_same_again(client: openai.OpenAI) -> None:
    def ask() -> list[str]:
        answer = client.completions.create(
            model="tiny", prompt="Hello", n=3, seed=7, max_tokens=6, temperature=1
        )
        assert [each.index for each in answer.choices] == [0, 1, 2]
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 18
        return [each.text for each in answer.choices]

    assert len(set(ask())) == 3


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=USER, logprobs=True, top_logprobs=3, max_tokens=5, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        best, *others = entry.top_logprobs
        assert len(others) == 2
        assert entry.logprob == best.logprob  # greedy: the chosen one is the likeliest
        assert all(best.logprob >= other.logprob for other in others)
        assert best.logprob <= 0
    text = client.completions.create(model="tiny", prompt="Hello", logprobs=2, max_tokens=5)
    legacy = text.choices[0].logprobs
    assert legacy is not None
    assert legacy.tokens
    assert len(legacy.tokens) == len(legacy.token_logprobs or ()) == len(legacy.text_offset or ())


def test_a_json_schema_holds_whatever_the_model_would_say(client: openai.OpenAI) -> None:
    for seed in range(5):
        answer = client.chat.completions.create(
            model="tiny", messages=USER, response_format=FORM, seed=seed, temperature=2
        )
        value = json.loads(answer.choices[0].message.content or "")
        assert value["name"] in ("Ada", "Bob")
        assert isinstance(value["old"], bool)
        assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "register"}}]
)
def test_a_call_can_be_forced_from_any_model(
    client: openai.OpenAI, choice: Any, stream: bool
) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": USER, "tools": TOOLS, "seed": 3}
    if stream:
        with client.chat.completions.stream(**fields, tool_choice=choice) as events:
            answer: Any = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**fields, tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "register"
    assert json.loads(call.function.arguments).keys() == {"name", "old"}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_bias_forbids(client: openai.OpenAI) -> None:
    def first(bias: dict[str, int]) -> str:
        answer = client.completions.create(
            model="tiny", prompt="Hello", max_tokens=1, temperature=0, logit_bias=bias, logprobs=0
        )
        assert answer.choices[0].logprobs is not None
        return (answer.choices[0].logprobs.tokens or [""])[0]

    others = {str(token): -100 for token in range(261) if token != 120}
    assert first(others) == first({"120": 100})
    assert first(others) != first({"120": -100})


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=USER)
    with pytest.raises(openai.BadRequestError, match="grammar"):
        client.chat.completions.create(
            model="tiny", messages=USER, extra_body={"grammar": "no grammar"}
        )


def test_embeddings(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="tiny", input=["one", "two"])
    assert [each.index for each in found.data] == [0, 1]
    assert len(found.data[0].embedding) == len(found.data[1].embedding) > 1
    assert found.usage.total_tokens == 6


def test_the_users_own_template(launch: Launch, model_path: Any, tmp_path: Any) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{{ messages[0].content }}{% if loud %}!!!{% endif %}<think>", "utf-8")
    settings = json.dumps({"chat_template": str(path)})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    counts = [
        worker.chat("abc", max_tokens=1, **fields).json()["usage"]["prompt_tokens"]
        for fields in ({}, {"chat_template_kwargs": {"loud": True}})
    ]
    assert counts[1] - counts[0] == 3
    assert counts[0] == len("abc<think>")


def test_a_template_that_is_not_there_is_told(launch: Launch, model_path: Any) -> None:
    settings = json.dumps({"chat_template": "no-such-file"})
    worker = launch(
        "--model", str(model_path), "--name", "tiny", "--settings", settings, ready=False
    )
    assert worker.process.wait(60) == 1
    assert "'chat_template' is neither a template nor a file" in worker.stderr
