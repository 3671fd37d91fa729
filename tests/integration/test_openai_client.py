"""OpenAI's own Python client against a worker, with an engine that writes what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from tests.scripted import ScriptedEngine, functions, says, served

HERMES = "<tool_call>{{ tools }}</tool_call><think></think>"
HARMONY = "<|channel|>{{ tools }}"
USER: Any = [{"role": "user", "content": "Hi"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TOOLS: Any = functions("weather", "time")


@asynccontextmanager
async def client_of(engine: ScriptedEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        served(engine) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


async def test_a_chat_whole_and_streamed() -> None:
    async with client_of(ScriptedEngine(says("Good morning."))) as client:
        whole = await client.chat.completions.create(model="m", messages=USER)
        stream = await client.chat.completions.create(
            model="m", messages=USER, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content == "Good morning."
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 15
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 4
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == "Good morning."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers(stream: bool) -> None:
    engine = ScriptedEngine(says("one", "two, longer", "three"))
    async with client_of(engine) as client:
        if stream:
            texts: dict[int, str] = {}
            reasons: dict[int, Any] = {}
            answer = await client.chat.completions.create(
                model="m", messages=USER, n=3, stream=True
            )
            async for chunk in answer:
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                    reasons[choice.index] = choice.finish_reason
        else:
            whole = await client.chat.completions.create(model="m", messages=USER, n=3)
            texts = {each.index: each.message.content or "" for each in whole.choices}
            reasons = {each.index: each.finish_reason for each in whole.choices}
            assert whole.usage is not None
            assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (10, 7)
    assert texts == {0: "one", 1: "two, longer", 2: "three"}
    assert reasons == dict.fromkeys(range(3), "stop")


async def test_log_probabilities() -> None:
    async with client_of(ScriptedEngine(says("abcdef"))) as client:
        whole = await client.chat.completions.create(
            model="m", messages=USER, logprobs=True, top_logprobs=2
        )
        stream = await client.chat.completions.create(
            model="m", messages=USER, logprobs=True, stream=True
        )
        chunks = [chunk async for chunk in stream]
        text = await client.completions.create(model="m", prompt="x", logprobs=1)
        none = await client.completions.create(model="m", prompt="x")
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [each.token for each in logprobs.content] == ["abc", "def"]
    assert logprobs.content[0].bytes == list(b"abc")
    assert [each.token for each in logprobs.content[0].top_logprobs] == ["", "x"]
    streamed = [each.choices[0].logprobs for each in chunks]
    tokens = [entry.token for each in streamed if each for entry in each.content or ()]
    assert tokens == ["abc", "def"]
    legacy = text.choices[0].logprobs
    assert legacy is not None
    assert legacy.tokens == ["abc", "def"]
    assert legacy.token_logprobs == [-0.5, -0.5]
    assert legacy.text_offset == [0, 3]
    assert legacy.top_logprobs == [{"": 0.0}, {"": 0.0}]
    assert none.choices[0].logprobs is None


async def test_a_completion_streamed_knows_where_its_tokens_are() -> None:
    async with client_of(ScriptedEngine(says("abcdefgh"))) as client:
        stream = await client.completions.create(model="m", prompt="x", logprobs=0, stream=True)
        chunks = [chunk async for chunk in stream]
    offsets = [each.choices[0].logprobs.text_offset for each in chunks if each.choices[0].logprobs]
    assert offsets == [[0], [3], [6]]
    assert "".join(each.choices[0].text for each in chunks) == "abcdefgh"


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called(stream: bool) -> None:
    engine = ScriptedEngine(says(f"<think>\nWhere?\n</think>\n\nI look.\n{CALL}\n{CALL}"), HERMES)
    async with client_of(engine) as client:
        message, reason = await ask(client, stream, tools=TOOLS, tool_choice="auto")
    assert message["content"] == "I look."
    assert message["reasoning_content"] == "Where?"
    calls = message["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["weather", "weather"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Paris"}
    assert len({call["id"] for call in calls}) == 2
    assert reason == "tool_calls"


async def ask(client: openai.AsyncOpenAI, stream: bool, **fields: Any) -> tuple[Any, Any]:
    """Return the message and the finish reason, of a stream put together by the client."""
    if not stream:
        whole = await client.chat.completions.create(model="m", messages=USER, **fields)
        return whole.choices[0].message.model_dump(), whole.choices[0].finish_reason
    async with client.chat.completions.stream(model="m", messages=USER, **fields) as events:
        async for _ in events:
            pass
        choice = (await events.get_final_completion()).choices[0]
        return choice.message.model_dump(), choice.finish_reason


async def test_one_call_at_a_time_if_so_wished() -> None:
    async with client_of(ScriptedEngine(says(CALL + CALL), HERMES)) as client:
        message, _ = await ask(client, False, tools=TOOLS, parallel_tool_calls=False)
    assert len(message["tool_calls"]) == 1
    assert message["content"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
async def test_a_call_that_must_be_made_is_forced_by_a_schema(choice: Any, stream: bool) -> None:
    engine = ScriptedEngine(says('{"name": "weather", "arguments": {"city": "Rome"}}'), HARMONY)
    async with client_of(engine) as client:
        message, reason = await ask(client, stream, tools=TOOLS, tool_choice=choice)
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    assert reason == "tool_calls"
    form = engine.seen[0].response_format
    assert form is not None
    schema = form["json_schema"]["schema"]
    names = [each["properties"]["name"]["const"] for each in schema.get("anyOf", [schema])]
    assert names == (["weather", "time"] if choice == "required" else ["weather"])


async def test_tools_that_must_not_be_called_are_not_told() -> None:
    engine = ScriptedEngine(says(CALL), HERMES)
    async with client_of(engine) as client:
        message, reason = await ask(client, False, tools=TOOLS, tool_choice="none")
    assert (message["content"], message["tool_calls"], reason) == (CALL, None, "stop")
    assert engine.seen[0].tools is None  # type: ignore[attr-defined]  # of a chat


async def test_a_conversation_with_tools_goes_on() -> None:
    messages: Any = [
        *USER,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Sun."},
    ]
    async with client_of(ScriptedEngine(says("It is sunny."), HERMES)) as client:
        whole = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert whole.choices[0].message.content == "It is sunny."


async def test_reasoning_that_the_prompt_opened() -> None:
    engine = ScriptedEngine(says("Hm.\n</think>\n\nYes."), HERMES, prompt="<assistant><think>\n")
    async with client_of(engine) as client:
        message, _ = await ask(client, True)
        assert (message["content"], message["reasoning_content"]) == ("Yes.", "Hm.")


async def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    engine = ScriptedEngine(says('{"a": 1}'), HERMES, prompt="<think>")
    async with client_of(engine) as client:
        message, _ = await ask(client, False, response_format=form)
    assert json.loads(message["content"]) == {"a": 1}
    assert engine.seen[0].response_format == form


@pytest.mark.parametrize("form", ["base64", "float"])
async def test_embeddings(form: Any) -> None:
    async with client_of(ScriptedEngine(says(""))) as client:
        one = await client.embeddings.create(model="m", input="abc")
        two = await client.embeddings.create(
            model="m", input=["a", "bc"], encoding_format=form, dimensions=2
        )
        with pytest.raises(openai.BadRequestError, match="empty text"):
            await client.embeddings.create(model="m", input="")
        with pytest.raises(openai.BadRequestError, match="tokens are not supported"):
            await client.embeddings.create(model="m", input=[1, 2])
    assert one.data[0].embedding == [3.25] * 3
    assert one.usage.prompt_tokens == 7
    if form == "float":
        assert [each.embedding for each in two.data] == [[1.25] * 2, [2.25] * 2]
    else:
        assert isinstance(two.data[0].embedding, str)


async def test_errors_are_the_clients_own() -> None:
    async with client_of(ScriptedEngine(says(""))) as client:
        create = client.chat.completions.create
        with pytest.raises(openai.NotFoundError, match="not loaded here"):
            await create(model="other", messages=USER)
        with pytest.raises(openai.BadRequestError) as caught:
            await create(model="m", messages=USER, n=17)
        assert (caught.value.param, caught.value.code) == ("n", "invalid_parameters")
        with pytest.raises(openai.BadRequestError, match="needs 'logprobs'"):
            await create(model="m", messages=USER, top_logprobs=2)
        with pytest.raises(openai.NotFoundError):
            await client.files.list()


async def test_the_models() -> None:
    async with client_of(ScriptedEngine(says(""))) as client:
        assert [model.id async for model in client.models.list()] == ["m"]


async def test_metrics() -> None:
    async with client_of(ScriptedEngine(says("abcdef"))) as client:
        await client.chat.completions.create(model="m", messages=USER, n=2)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=USER)
        url = str(client.base_url).removesuffix("v1/") + "metrics"
        answer = await client.with_options().get(url, cast_to=str)
    lines = dict(line.rsplit(" ", 1) for line in answer.splitlines() if line[0] != "#")
    path = 'aiplayground_requests_total{path="/v1/chat/completions",status='
    assert (lines[path + '"200"}'], lines[path + '"404"}']) == ("1", "1")
    assert lines["aiplayground_prompt_tokens_total"] == "10"
    assert lines["aiplayground_cached_prompt_tokens_total"] == "4"
    assert lines["aiplayground_completion_tokens_total"] == "4"
    assert lines["aiplayground_time_to_first_token_seconds_count"] == "1"
    assert lines['aiplayground_time_to_first_token_seconds_bucket{le="+Inf"}'] == "1"
    assert lines["aiplayground_requests_active"] == "0"
    assert lines["aiplayground_engine_steps"] == "5"
