"""Greedy answers: the likeliest token is the same whoever looks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiplayground.types import ChatChunk, CompletionRequest
from aiplayground_llamacpp import engine as engine_module
from aiplayground_llamacpp.branch import make_chain
from aiplayground_llamacpp.chain import Chain
from aiplayground_llamacpp.context import OK, Context, Row
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.greedy import GreedyChain
from aiplayground_llamacpp.native import Model
from aiplayground_llamacpp.sampling import SamplerPlan, Step, plan
from aiplayground_llamacpp.settings import Settings

pytestmark = pytest.mark.engine

GREEDY = (Step("greedy"),)


@pytest.fixture
async def engine(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LlamaEngine]:
    monkeypatch.setattr(engine_module, "STARTED", 0.0)
    made = LlamaEngine(Settings(slots=3), lambda line: None)
    await made.open()
    await made.load(model_path, "tiny", lambda fraction: None)
    yield made
    await made.close()


def parts(engine: LlamaEngine) -> tuple[Model, Context]:
    assert engine._seat is not None
    context = engine._seat.loaded.context
    assert context is not None
    return engine._seat.loaded.model, context


async def test_it_is_that_of_a_native_chain_with_every_kind_of_bias(engine: LlamaEngine) -> None:
    model, context = parts(engine)

    def compare() -> None:
        status, places = context.decode([Row(slot, 0, [65 + slot, 70], True) for slot in range(3)])
        assert status == OK
        for place in places:
            first = choose(SamplerPlan(GREEDY), place)
            second = choose(SamplerPlan(GREEDY, biases=((first, -1e9),)), place)
            assert first != second
            many = ((first, -0.5), (second, 0.25), (second, 0.5), (3, -float("inf")), (4, 9.0))
            choose(SamplerPlan(GREEDY, biases=many), place)
            assert choose(SamplerPlan(GREEDY, biases=((7, 1e9),)), place) == 7
            banned = choose(SamplerPlan(GREEDY, biases=((first, -1.0),), ban_end=True), place)
            assert not model.is_end(banned)
            # Nothing was written into the logits.
            assert choose(SamplerPlan(GREEDY), place) == first
        context.clear()

    def choose(what: SamplerPlan, place: int) -> int:
        native, ours = Chain(model, what, ()), GreedyChain(model, what)
        try:
            token = native.choose(context, place)
            assert token is not None
            assert ours.choose(context, place) == token
            return token
        finally:
            native.close()
            ours.close()

    await engine._thread.call(compare)


async def test_it_is_looked_for_here_only_where_nothing_else_is_asked(engine: LlamaEngine) -> None:
    model, _ = parts(engine)
    assert engine._preparing is not None
    await asyncio.wait_for(engine._preparing, 30)
    assert model.has_arrays

    def kind(**fields: Any) -> str:
        request = CompletionRequest(model="tiny", prompt="a", **fields)
        chain = make_chain(model, plan(request, model.vocabulary), [1])
        chain.close()
        return type(chain).__name__

    assert kind(temperature=0) == "GreedyChain"
    assert kind(top_k=1, logit_bias={"3": -100}) == "GreedyChain"
    assert kind(temperature=0, repeat_penalty=1.1) == "Chain"
    assert kind(temperature=0.5, seed=1) == "Chain"


async def test_answers_do_not_change_when_arrays_come(engine: LlamaEngine) -> None:
    model, _ = parts(engine)
    assert engine._preparing is not None
    await asyncio.wait_for(engine._preparing, 30)
    for fields in ({}, {"ignore_eos": True}, {"logit_bias": {"104": -100, "101": 2}}, {"n": 2}):
        answers = []
        for model.has_arrays in (False, True):
            answers.append([chunk async for chunk in engine.complete(_request(**fields))])
        assert _texts(answers[0]) == _texts(answers[1])
        assert _texts(answers[0])


async def test_a_stop_text_frees_the_slot_and_what_was_chosen_since_is_dropped(
    engine: LlamaEngine,
) -> None:
    [whole] = _texts([chunk async for chunk in engine.complete(_request(ignore_eos=True))]).values()
    stop = whole[4:7]
    request = _request(ignore_eos=True, stop=[stop])
    chunks = [chunk async for chunk in engine.complete(request)]
    assert _texts(chunks) == {0: whole[: whole.index(stop)]}
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens < 20
    async with asyncio.timeout(30):
        while engine.active:
            await asyncio.sleep(0.01)
    assert engine.counters["slots_busy"] == 0


def _request(**fields: Any) -> CompletionRequest:
    asked = {"model": "tiny", "prompt": "Hello", "max_tokens": 20, "temperature": 0, **fields}
    return CompletionRequest(**asked)


def _texts(chunks: list[ChatChunk]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in chunks:
        texts[chunk.index] = texts.get(chunk.index, "") + chunk.text
    return texts
