"""The kernel's hooks for workers that speak OpenAI's API, against a worker's own application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tests.scripted import ScriptedEngine, functions, says

from aiplayground import _openai
from aiplayground.errors import InvalidParameters
from aiplayground.serving.app import App
from aiplayground.serving.host import Host
from aiplayground.serving.logprobs import from_text
from aiplayground.types import (
    ChatRequest,
    CompletionRequest,
    EmbedRequest,
    ImageRequest,
    Message,
    RerankRequest,
)

MESSAGES = [Message(role="user", content="Hi")]


@asynccontextmanager
async def context(engine: ScriptedEngine) -> AsyncIterator[Any]:
    lines: list[str] = []
    host = Host(engine, lines.append)
    await host.launch(Path("model"), "m")
    transport = httpx.ASGITransport(app=App(host, "secret"))

    async def endpoint(model: str | None) -> str:
        return "http://localhost"

    async with httpx.AsyncClient(transport=transport) as client:
        yield SimpleNamespace(http=client, endpoint=endpoint, service="fake")


async def test_half_a_character_is_a_bad_request_and_no_defect() -> None:
    request = ChatRequest(model="m", messages=[Message(role="user", content="a\ud800")])
    async with context(ScriptedEngine(says("abcd"))) as ctx:
        with pytest.raises(InvalidParameters, match="half a character"):
            [chunk async for chunk in _openai.chat(ctx, request)]
        with pytest.raises(InvalidParameters, match="half a character"):
            await _openai.embed(ctx, EmbedRequest(model="m", input=["\udfff"]))


async def test_several_answers_each_with_an_end_and_one_count() -> None:
    request = ChatRequest(model="m", messages=MESSAGES, n=2, logprobs=True)
    async with context(ScriptedEngine(says("abcd", "x"))) as ctx:
        chunks = [chunk async for chunk in _openai.chat(ctx, request)]
    for index, text in ((0, "abcd"), (1, "x")):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert "".join(chunk.text for chunk in own) == text
        assert [chunk.finish_reason for chunk in own if chunk.finish_reason] == ["stop"]
        tokens = [entry["token"] for chunk in own for entry in chunk.logprobs or ()]
        assert "".join(tokens) == text
    counts = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(counts) == 1
    assert counts[0] is chunks[-1].usage
    assert (counts[0].prompt_tokens, counts[0].completion_tokens) == (10, 3)
    assert counts[0].cached_tokens == 4


async def test_completions_with_log_probabilities() -> None:
    request = CompletionRequest(model="m", prompt="x", logprobs=True, top_logprobs=2)
    async with context(ScriptedEngine(says("abcd"))) as ctx:
        events = [event async for event in _openai.generate(ctx, request)]
    entries = [entry for event in events for entry in event.logprobs or ()]
    assert [entry["token"] for entry in entries] == ["abc", "d"]
    assert entries[0]["bytes"] == list(b"abc")
    assert [top["token"] for top in entries[0]["top_logprobs"]] == ["", "x"]
    assert events[-1].finish_reason == "stop"
    assert events[-1].usage is not None


async def test_calls_and_reasoning() -> None:
    said = '<think>\nHm\n</think>\n<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    request = ChatRequest(model="m", messages=MESSAGES, tools=list(functions("f")))
    async with context(ScriptedEngine(says(said), "<tool_call></think>")) as ctx:
        chunks = [chunk async for chunk in _openai.chat(ctx, request)]
    calls: list[Mapping[str, Any]] = [call for each in chunks for call in each.tool_calls or ()]
    assert [call["function"]["name"] for call in calls] == ["f"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1}
    assert "".join(chunk.reasoning for chunk in chunks) == "Hm"
    assert "".join(chunk.text for chunk in chunks) == ""
    assert chunks[-1].finish_reason == "tool_calls"


async def test_embeddings() -> None:
    async with context(ScriptedEngine(says(""))) as ctx:
        answer = await _openai.embed(ctx, EmbedRequest(model="m", input=["a", "bc"]))
    assert answer.vectors == [[1.25] * 3, [2.25] * 3]
    assert answer.usage.prompt_tokens == 7


async def test_ranking() -> None:
    request = RerankRequest(model="m", query="abc", documents=["a", "abc", "ab", "x"], top_n=3)
    async with context(ScriptedEngine(says(""))) as ctx:
        events = [event async for event in _openai.generate(ctx, request)]
        with pytest.raises(InvalidParameters, match="image"):
            async for _ in _openai.generate(ctx, ImageRequest(prompt="x")):
                pass
    assert [event.kind for event in events] == ["result"]
    results = events[0].result["results"] if events[0].result else []
    assert [each["index"] for each in results] == [1, 2, 0]
    assert results[0]["relevance_score"] == 0.75
    assert events[0].usage is not None
    assert events[0].usage.prompt_tokens == 7


@pytest.mark.parametrize("shape", [None, {}, {"tokens": []}])
def test_log_probabilities_that_are_not_there(shape: Any) -> None:
    assert from_text(shape) is None


async def test_an_answer_may_hold_any_character_that_ends_a_line_elsewhere() -> None:
    odd = "a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\r\nh\u00e9\U0001f600"
    request = ChatRequest(model="m", messages=MESSAGES)
    async with context(ScriptedEngine(says(odd))) as ctx:
        chunks = [chunk async for chunk in _openai.chat(ctx, request)]
    assert "".join(chunk.text for chunk in chunks) == odd
