"""A worker from one function: counts, limits, closing, and what it has no place for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from tests.fakes import collect, question

from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.serving import simple
from aiplayground.serving.engine import Engine
from aiplayground.serving.simple import FunctionEngine, echo, text_of
from aiplayground.types import ChatRequest, CompletionRequest


class Speaker:
    """Says three words; `closed` counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def __call__(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        try:
            for word in ("one ", "two ", "three "):
                await asyncio.sleep(0)
                yield word
        finally:
            self.closed += 1


def engine(speaker: Speaker) -> FunctionEngine:
    return FunctionEngine(speaker, model="m", parameters=["seed"])


async def test_it_is_an_engine() -> None:
    made: Engine = engine(Speaker())
    await made.open()
    assert made.loaded is not None
    assert made.loaded.name == "m"
    assert made.parameters == {"max_tokens", "seed"}


@pytest.mark.parametrize(
    ("limit", "text", "reason"),
    [(None, "one two three ", "stop"), (3, "one two three ", "stop"), (2, "one two ", "length")],
)
async def test_pieces_are_counted_and_limited(limit: int | None, text: str, reason: str) -> None:
    speaker = Speaker()
    chunks = await collect(engine(speaker).chat(question(max_tokens=limit)))
    assert "".join(chunk.text for chunk in chunks) == text
    assert chunks[-1].finish_reason == reason
    assert chunks[-1].usage.completion_tokens == len(text.split())
    assert chunks[-1].usage.prompt_tokens == 1
    assert speaker.closed == 1


async def test_closing_the_answer_closes_the_function() -> None:
    speaker = Speaker()
    made = engine(speaker)
    answer = made.chat(question())
    await anext(answer)
    assert made.active == 1
    await answer.aclose()
    assert (speaker.closed, made.active) == (1, 0)


async def test_closing_the_engine_ends_answers() -> None:
    speaker = Speaker()
    made = engine(speaker)
    answer = made.chat(question())
    await anext(answer)
    await made.close()
    with pytest.raises(ServiceNotAvailable, match="ending"):
        await anext(answer)
    assert speaker.closed == 1


async def test_a_completion_is_answered_as_a_message() -> None:
    made = FunctionEngine(echo, model="m")
    request = CompletionRequest(model="m", prompt="say this again", max_tokens=2)
    chunks = await collect(made.complete(request))
    assert "".join(chunk.text for chunk in chunks) == "say this "
    assert chunks[-1].finish_reason == "length"


async def test_there_is_nothing_to_load() -> None:
    made = engine(Speaker())
    with pytest.raises(InvalidParameters, match="'m' alone"):
        await made.load(Path("x"), "x", lambda _: None)
    with pytest.raises(InvalidParameters, match="'m' alone"):
        await made.unload()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}, 3], "a  b"),
    ],
)
def test_the_text_of_a_message(content: object, text: str) -> None:
    assert text_of(content).split() == text.split()


def test_the_program_serves_the_echo_by_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[FunctionEngine] = []

    def run(factory: Callable[[dict[str, object]], FunctionEngine]) -> None:
        served.append(factory({}))

    monkeypatch.setattr(simple, "run", run)
    for argv in (["simple", "--port", "1"], ["simple", "--port", "1", "--name", "polly"]):
        monkeypatch.setattr(sys, "argv", argv)
        simple.main()
    assert [each.loaded.name for each in served if each.loaded] == ["echo", "polly"]
