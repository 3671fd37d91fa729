"""OpenAI's and Anthropic's own clients against `aipg serve`, with llama.cpp behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from tests.fakes import PATIENCE

pytestmark = pytest.mark.engine

ASKED: Any = [{"role": "user", "content": "What is AI Playground?"}]
GREEDY = {"temperature": 0}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIPG_")}
    environment = kept | {"AIPG_HOME": str(home)}
    aipg = [sys.executable, "-m", "aiplayground.cli"]
    told = subprocess.run(
        [*aipg, "serve", "--detach", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    yield json.loads(told.stdout)["url"]
    stopped = subprocess.run([*aipg, "stop"], env=environment, timeout=60, check=False)
    assert stopped.returncode == 0
    token = Path(home) / "runtime" / "token"
    deadline = time.monotonic() + PATIENCE  # it answers first, and stops then
    while token.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert "guide" in [model.id for model in client.models.list()]
    assert client.models.retrieve("guide").owned_by == "llamacpp-backend"
    assert client.models.retrieve("llamacpp-backend/guide").id == "llamacpp-backend/guide"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("nothing")
    assert refused.value.body["code"] == "model_not_found"  # type: ignore[index]  # a mapping


@pytest.mark.parametrize("model", ["guide", "llamacpp-backend/guide", "ai-backend/guide"])
def test_chat_whole_and_streamed(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=ASKED, temperature=0)
    stream = client.chat.completions.create(
        model=model,
        messages=ASKED,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert "your own computer" in text
    assert whole.choices[0].message.content == text
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens > 0


def test_the_router_alone_takes_the_default_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="ai-backend", messages=ASKED, max_tokens=4)
    assert answer.choices[0].finish_reason == "length"


def test_tools_and_json_schema(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "switch", "parameters": SCHEMA}}
    answer = client.chat.completions.create(
        model="guide", messages=ASKED, tools=[tool], tool_choice="required", seed=1
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert json.loads(call.function.arguments)["on"] in (True, False)
    formed = client.chat.completions.create(
        model="guide",
        messages=ASKED,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    )
    assert json.loads(formed.choices[0].message.content or "")["on"] in (True, False)


def test_completions_and_embeddings(client: openai.OpenAI) -> None:
    text = client.completions.create(model="guide", prompt="AI Playground", max_tokens=5)
    assert text.usage is not None
    assert text.usage.completion_tokens == 5
    vectors = client.embeddings.create(model="guide", input=["one", "another"])
    assert len(vectors.data) == 2
    assert len(vectors.data[0].embedding) > 8


def test_what_is_wrong_is_said_in_the_client_s_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="guide", messages=ASKED, temperature=9)
    assert "temperature" in str(refused.value)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=ASKED)


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="guide", instructions="Be short.", input="What is AI Playground?", temperature=0
    )
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    events = list(
        client.responses.create(
            model="guide",
            instructions="Be short.",
            input=[{"role": "user", "content": "What is AI Playground?"}],
            temperature=0,
            stream=True,
        )
    )
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == answer.output_text
    deltas = [each.delta for each in events if each.type == "response.output_text.delta"]
    assert "".join(deltas) == answer.output_text


def test_responses_with_a_length_limit_a_tool_and_a_schema(client: openai.OpenAI) -> None:
    cut = client.responses.create(model="guide", input="What is it?", max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    called = client.responses.create(
        model="guide",
        input="Switch it on.",
        tools=[{"type": "function", "name": "switch", "parameters": SCHEMA, "strict": True}],
        tool_choice="required",
    )
    (call,) = called.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["on"] in (True, False)
    again = client.responses.create(
        model="guide",
        input=[
            {"role": "user", "content": "Switch it on."},
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": "switch",
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "done"},
        ],
        max_output_tokens=8,
    )
    assert again.output_text
    formed = client.responses.create(
        model="guide",
        input="Is it on?",
        text={"format": {"type": "json_schema", "name": "state", "schema": SCHEMA, "strict": True}},
    )
    assert json.loads(formed.output_text)["on"] in (True, False)
    with pytest.raises(openai.BadRequestError, match="stored"):
        client.responses.create(model="guide", input="x", previous_response_id="resp_1")


def test_messages(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="guide", max_tokens=100, system="Be short.", messages=ASKED, extra_body=GREEDY
    )
    assert answer.stop_reason == "end_turn"
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens > 0
    with claude.messages.stream(
        model="guide", max_tokens=100, system="Be short.", messages=ASKED, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == answer.content[0].text
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == answer.usage.output_tokens


def test_messages_with_a_tool(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "switch", "description": "The light", "input_schema": SCHEMA}
    asked: Any = [{"role": "user", "content": "Switch it on."}]
    answer = claude.messages.create(
        model="guide", max_tokens=100, messages=asked, tools=[tool], tool_choice={"type": "any"}
    )
    assert answer.stop_reason == "tool_use"
    (call,) = answer.content
    assert call.type == "tool_use"
    assert call.input["on"] in (True, False)
    with claude.messages.stream(
        model="guide", max_tokens=100, messages=asked, tools=[tool], tool_choice={"type": "any"}
    ) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    after = claude.messages.create(
        model="guide",
        max_tokens=8,
        messages=[
            *asked,
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    )
    assert after.content


def test_messages_with_a_schema(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="guide",
        max_tokens=100,
        messages=ASKED,
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    assert answer.content[0].type == "text"
    assert json.loads(answer.content[0].text)["on"] in (True, False)


def test_tokens_are_counted(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model="guide", messages=ASKED).input_tokens
    used = claude.messages.create(model="guide", max_tokens=1, messages=ASKED).usage
    assert counted == used.input_tokens + (used.cache_read_input_tokens or 0)


def test_messages_refused_in_the_client_s_own_errors(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nobody"):
        claude.messages.create(model="nobody", max_tokens=1, messages=ASKED)
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(
            model="guide", max_tokens=1, messages=ASKED, extra_body={"temperature": 9}
        )
