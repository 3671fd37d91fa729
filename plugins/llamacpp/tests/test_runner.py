"""The engine in this process, where its memory can be made small and its steps can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.tiny_model import CONTEXT

from aiplayground.errors import InvalidParameters, ServiceFailed, ServiceNotAvailable
from aiplayground.types import CompletionRequest
from aiplayground_llamacpp import machine
from aiplayground_llamacpp.context import Context
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.settings import Settings

pytestmark = pytest.mark.engine

Make = Callable[..., Any]


@pytest.fixture
async def make(model_path: Path) -> AsyncIterator[Make]:
    engines: list[LlamaEngine] = []

    async def make_engine(**settings: Any) -> LlamaEngine:
        engine = LlamaEngine(Settings(**settings), lambda line: None)
        engines.append(engine)
        await engine.open()
        await engine.load(model_path, "tiny", lambda fraction: None)
        return engine

    yield make_engine
    for engine in engines:
        await engine.close()


async def ask(engine: LlamaEngine, prompt: str, limit: int = 20, **fields: Any) -> tuple[str, str]:
    """Return the text of a greedy answer and why it ended."""
    request = CompletionRequest(
        model="tiny", prompt=prompt, max_tokens=limit, temperature=0, ignore_eos=True, **fields
    )
    text, reason = "", ""
    async for chunk in engine.complete(request):
        text += chunk.text
        reason = chunk.finish_reason or reason
    return text, reason


@pytest.mark.parametrize("cache", [0, 64])
async def test_where_not_all_answers_fit_some_wait_and_none_is_cut_short(
    make: Make, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 0)
    engine = await make(slots=6, prompt_cache=cache)
    prompts = [letter * (CONTEXT // 2) for letter in "abcdefgh"]
    alone = [await ask(engine, prompt, 40) for prompt in prompts]
    together = await asyncio.gather(*(ask(engine, prompt, 40) for prompt in prompts))
    assert {reason for _, reason in (*alone, *together)} == {"length"}
    assert together == alone
    assert engine.counters["put_off"] > 0
    assert engine.active == 0


async def test_answers_that_grow_out_of_a_full_memory_end_in_turn(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 0)
    engine = await make(slots=4)
    answers = await asyncio.gather(*(ask(engine, letter, 10**6) for letter in "abcd"))
    assert [reason for _, reason in answers] == ["length"] * 4
    again = await ask(engine, "a", 10**6)
    assert again[1] == "length"
    assert engine.counters["put_off"] > 0


async def test_a_step_that_fails_is_an_error_to_those_in_it_and_the_next_ones_work(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make(slots=1)
    before = await ask(engine, "Hello")
    decode = Context.decode
    failing = {"left": 1}

    def fail_once(self: Context, rows: Any) -> Any:
        if failing["left"]:
            failing["left"] -= 1
            return -3, []
        return decode(self, rows)

    monkeypatch.setattr(Context, "decode", fail_once)
    with pytest.raises(ServiceFailed, match="status -3"):
        await ask(engine, "Hello")
    assert await ask(engine, "Hello") == before
    assert engine.active == 0


async def test_a_defect_in_a_step_is_an_error_too(
    make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = await make(slots=1)
    monkeypatch.setattr(Context, "sample", lambda self, chain, place: 1 // 0)
    with pytest.raises(Exception, match="its log says more"):
        await ask(engine, "Hello")
    assert "ZeroDivisionError" in capfd.readouterr().err
    monkeypatch.undo()
    assert (await ask(engine, "Hello"))[1] == "length"


async def test_an_interrupted_batch_is_computed_again(make: Make) -> None:
    engine = await make(slots=2, context_size=4000)
    seat = engine._seat
    assert seat is not None
    prompt = "a" * 3000
    plain = await ask(engine, prompt)
    engine2 = await make(slots=2, context_size=4000)
    assert engine2._seat is not None
    context = engine2._seat.loaded.context
    answer = asyncio.ensure_future(ask(engine2, prompt))
    for _ in range(20):
        await asyncio.sleep(0.001)
        context.interrupt()
    assert await answer == plain


async def test_whoever_leaves_frees_the_slot_at_once(make: Make) -> None:
    engine = await make(slots=1, context_size=100_000)
    request = CompletionRequest(model="tiny", prompt="a" * 90_000, max_tokens=1)

    async def first() -> None:
        async with aclosing(engine.complete(request)) as chunks:
            await anext(chunks)

    async with asyncio.timeout(30):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first(), 0.3)
        assert (await ask(engine, "Hello", 3))[1] == "length"
    assert engine.active == 0


async def test_a_model_that_goes_away_takes_its_jobs_with_it(make: Make) -> None:
    engine = await make(slots=2, context_size=100_000)
    answers = [asyncio.ensure_future(ask(engine, letter, 10**6)) for letter in "abcd"]
    await asyncio.sleep(0.1)
    await engine.unload()
    ended = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(each, ServiceNotAvailable) for each in ended)
    assert engine.active == 0


async def test_a_context_refuses_what_would_end_the_process(make: Make) -> None:
    from aiplayground_llamacpp.context import Row

    engine = await make(slots=2)
    assert engine._seat is not None
    context = engine._seat.loaded.context
    wrong = [
        [],
        [Row(0, 0, [], True)],
        [Row(2, 0, [1], True)],
        [Row(-1, 0, [1], True)],
        [Row(0, 0, [1] * (context.batch_size + 1), True)],
        [Row(0, 0, [1], True), Row(0, 1, [1], True), Row(1, 0, [1], True)],
    ]
    for rows in wrong:
        with pytest.raises(ValueError, match=r"batch|sequence"):
            context.decode(rows)
    with pytest.raises(ValueError, match="no sequence"):
        context.trim(2, 0)
    with pytest.raises(ValueError, match="no sequence"):
        context.copy(0, 2, 1)
    with pytest.raises(ValueError, match="no logits"):
        context.sample(None, 5)
    assert (await ask(engine, "Hello"))[1] == "length"


async def test_a_grammar_is_checked_before_any_work(make: Make) -> None:
    engine = await make()
    with pytest.raises(InvalidParameters, match="grammar"):
        await ask(engine, "Hello", grammar="root ::= nothing-there")
    assert engine.counters["prompt_tokens"] == 0
