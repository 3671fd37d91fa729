"""Images, on a real engine with tiny projectors of the three kinds that matter.

`mlp` (LLaVA) is computed like text, `gemma3` sees an image as a whole, and the positions of
`qwen2vl_merger` have rows and columns.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from plugins.llamacpp.tests.tiny_model import CONTEXT, write_model
from plugins.llamacpp.tests.tiny_parts import (
    data_url,
    picture,
    shown,
    write_projector,
    write_rows_model,
)
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch, Worker

from aiplayground.errors import InvalidParameters, ServiceFailed
from aiplayground.types import ChatRequest, Usage
from aiplayground_llamacpp import machine
from aiplayground_llamacpp.context import Context
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.settings import Settings
from aiplayground_llamacpp.sight import Sight

pytestmark = pytest.mark.engine

ENGINES = BOTH
PYTHON_ALONE = {"test_images_do_not_pile_up"}

KINDS = ("mlp", "gemma3", "qwen2vl_merger")
NEAR = 0.05
"""Difference of two logits that a batch of another size may turn around."""

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind, with a model and its projector."""
    root = tmp_path_factory.mktemp("vision")
    for kind in KINDS:
        here = root / kind
        here.mkdir()
        write_projector(here / "mmproj-tiny.gguf", kind)
        model = here / "tiny.gguf"
        write_rows_model(model) if kind == "qwen2vl_merger" else write_model(model)
    return root


@pytest.fixture
async def make(folder: Path) -> AsyncIterator[Make]:
    engines: list[LlamaEngine] = []

    async def make_engine(kind: str = "mlp", **settings: Any) -> LlamaEngine:
        engine = LlamaEngine(Settings(**settings), lambda line: None)
        engines.append(engine)
        await engine.open()
        await engine.load(folder / kind / "tiny.gguf", "tiny", lambda fraction: None)
        return engine

    yield make_engine
    for engine in engines:
        await engine.close()


class Answer:
    """A greedy answer: its bytes, how near each choice was, and what it cost."""

    def __init__(self) -> None:
        self.tokens: list[bytes] = []
        self.gaps: list[float] = []
        self.usage = Usage()
        self.reason: str | None = None

    def equals(self, other: Answer) -> bool:
        """Say whether they are the same, but for a choice between two that were all but equal."""
        pairs = zip(self.tokens, other.tokens, self.gaps, strict=True)
        gap = next((gap for one, another, gap in pairs if one != another), None)
        return gap is None or gap < NEAR


def request(*pieces: str | bytes, limit: int = 24, **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate(
        {
            "model": "tiny", "messages": shown(*pieces), "max_tokens": limit, "temperature": 0,
            "ignore_eos": True, "logprobs": True, "top_logprobs": 2, **fields,
        }
    )  # fmt: skip


async def ask(engine: LlamaEngine, *pieces: str | bytes, **fields: Any) -> Answer:
    answer = Answer()
    async for chunk in engine.chat(request(*pieces, **fields)):
        for entry in chunk.logprobs or ():
            one, other = (each["logprob"] for each in entry["top_logprobs"])
            answer.tokens.append(bytes(entry["bytes"]))
            answer.gaps.append(one - other)
        answer.usage = chunk.usage or answer.usage
        answer.reason = chunk.finish_reason or answer.reason
    return answer


@pytest.mark.parametrize("kind", KINDS)
async def test_an_image_counts_and_gives_the_same_answer_again(make: Make, kind: str) -> None:
    engine = await make(kind, prompt_cache=0, slots=1)
    first = await ask(engine, "look: ", picture(1), " what?")
    other = await ask(engine, "look: ", picture(2), " what?")
    again = await ask(engine, "look: ", picture(1), " what?")
    without = await ask(engine, "look: ", " what?")
    assert first.equals(again)
    assert len({b"".join(each.tokens) for each in (first, other, without)}) == 3
    assert first.usage.prompt_tokens > without.usage.prompt_tokens + 8
    assert engine.counters["cached_tokens"] < 3 * len("<s><|user|>look: ")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_is_the_same_beside_other_conversations(make: Make, kind: str) -> None:
    alone = await ask(await make(kind), "look: ", picture(1), " what?", limit=60)
    engine = await make(kind)

    async def talk(number: int) -> Answer:
        return await ask(engine, f"{number} and " * 20, limit=60)

    others = [await talk(number) for number in range(7)]
    engine = await make(kind)
    seen, *texts = await asyncio.gather(
        ask(engine, "look: ", picture(1), " what?", limit=60), *(talk(n) for n in range(7))
    )
    assert seen.equals(alone)
    assert all(one.equals(other) for one, other in zip(texts, others, strict=True))


@pytest.mark.parametrize("kind", ["mlp", "qwen2vl_merger"])
async def test_an_image_in_pieces_is_the_same_image(make: Make, kind: str) -> None:
    large = picture(4, 220, 150)
    whole = await ask(await make(kind), "look: ", large, " what?")
    engine = await make(kind, batch_size=32)
    beside = asyncio.ensure_future(ask(engine, "word " * 40, limit=200))
    assert (await ask(engine, "look: ", large, " what?")).equals(whole)
    assert len((await beside).tokens) == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_that_goes_on_does_not_read_its_image_again(
    make: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make(kind)
    encoded: list[int] = []
    encode = Sight.encode

    def count(self: Sight, image: Any) -> Any:
        encoded.append(image.size)
        return encode(self, image)

    monkeypatch.setattr(Sight, "encode", count)
    first = await ask(engine, "look: ", picture(1), " what?")
    messages = [
        *shown("look: ", picture(1), " what?"),
        {"role": "assistant", "content": "noise"},
        {"role": "user", "content": "and now?"},
    ]
    more = await ask(engine, messages=messages)
    assert len(encoded) == 1
    assert first.usage.cached_tokens == 0
    assert (more.usage.cached_tokens or 0) > len("<s><|user|>look:  what?")
    fresh = await make(kind)
    assert (await ask(fresh, messages=messages)).equals(more)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_image_comes_back_from_the_prompt_cache(make: Make, kind: str) -> None:
    engine = await make(kind, slots=1)
    text = "a long beginning, and then " * 2
    first = await ask(engine, text, picture(1), " what?")
    await ask(engine, "something else entirely " * 10)
    restored = engine.counters["restored_tokens"]
    again = await ask(engine, text, picture(1), " what?")
    assert engine.counters["restored_tokens"] > restored + len(text)
    assert again.equals(first)
    # The same text with another image shares what stands before it, and no more.
    other = await ask(engine, text, picture(2), " what?")
    before = len(f"<s><|user|>{text}") + len("<start_of_image>")
    assert (other.usage.cached_tokens or 0) <= before
    assert other.tokens != first.tokens


async def test_several_answers_and_several_images(make: Make) -> None:
    engine = await make()
    asked = request("one ", picture(1), " two ", picture(2), " three ", picture(1), n=4)
    ends = [chunk.usage async for chunk in engine.chat(asked) if chunk.finish_reason]
    assert len(ends) == 4
    assert sum(usage.prompt_tokens for usage in ends if usage) > 3 * 16
    one = await ask(engine, "x", picture(1), picture(2), "y")
    other = await ask(engine, "x", picture(2), picture(1), "y")
    assert one.tokens != other.tokens
    assert engine.active == 0


async def test_where_not_all_fit_images_wait_like_the_rest(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 0)
    engine = await make(slots=6, prompt_cache=0)
    asked = [(letter * (CONTEXT // 2), picture(n)) for n, letter in enumerate("abcdef")]
    alone = [await ask(engine, *each, "?", limit=40) for each in asked]
    together = await asyncio.gather(*(ask(engine, *each, "?", limit=40) for each in asked))
    assert {each.reason for each in (*alone, *together)} == {"length"}
    assert all(one.equals(other) for one, other in zip(alone, together, strict=True))
    assert engine.counters["put_off"] > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_storm_of_images_texts_and_leavers(
    make: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 0)
    pieces: list[list[str | bytes]] = [
        [f"{n} " * (7 * n % 40), *([picture(n % 3, 60, 90)] if n % 2 else []), "why?"]
        for n in range(8)
    ]
    calm = await make(kind, prompt_cache=0)
    alone = [await ask(calm, *each) for each in pieces]
    engine = await make(kind, slots=5, prompt_cache=1, batch_size=64)
    source = random.Random(8)

    async def client() -> None:
        for _ in range(7):
            number, patience = source.randrange(8), source.choice([0.003, 0.02, 60])
            try:
                async with asyncio.timeout(patience):
                    answer = await ask(engine, *pieces[number])
            except TimeoutError:
                continue
            assert answer.equals(alone[number])

    async with asyncio.timeout(60):
        await asyncio.gather(*(client() for _ in range(12)))
    assert engine.active == 0
    assert (await ask(engine, *pieces[5])).equals(alone[5])


async def test_whoever_leaves_during_an_image_leaves_no_trace(make: Make) -> None:
    engine = await make("qwen2vl_merger", batch_size=32, slots=2)
    large = picture(4, 300, 300)
    alone = await ask(engine, "look: ", large, " what?")
    for pause in range(12):

        async def leave(number: int = pause) -> None:
            async with aclosing(engine.chat(request("look: ", picture(number, 300, 300)))) as it:
                await anext(it)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(leave(), 0.002 * (pause + 1))
        assert (await ask(engine, "look: ", large, " what?")).equals(alone)
    assert engine.active == 0


async def test_native_images_are_freed_with_their_requests(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make()
    lib = engine._seat.loaded.sight._lib
    made, freed = list[int](), list[int]()
    begin, end = lib.mtmd_input_chunks_init, lib.mtmd_input_chunks_free

    def init() -> int:
        made.append(begin())
        return made[-1]

    def free(chunks: int) -> None:
        freed.append(chunks)
        end(chunks)

    monkeypatch.setattr(lib, "mtmd_input_chunks_init", init)
    monkeypatch.setattr(lib, "mtmd_input_chunks_free", free)
    for number in range(3):
        await ask(engine, "look: ", picture(number), " what?", n=2)
        async with aclosing(engine.chat(request("look: ", picture(number), "!"))) as chunks:
            await anext(chunks)
    with pytest.raises(InvalidParameters, match="context"):
        await ask(engine, *[picture(1)] * 4, "x" * CONTEXT)
    await engine.unload()
    assert len(made) >= 6
    async with asyncio.timeout(10):  # a thread that made one may be about to let go of it
        while len(freed) < len(made):
            gc.collect()
            await asyncio.sleep(0.01)
    assert sorted(freed) == sorted(made)


async def test_an_image_that_cannot_be_encoded_fails_its_request_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make()
    beside = asyncio.ensure_future(ask(engine, "Hello", limit=200))
    lib = engine._seat.loaded.sight._lib
    monkeypatch.setattr(lib, "mtmd_encode_chunk", lambda *_: 1)
    with pytest.raises(ServiceFailed, match="failed to read an image"):
        await ask(engine, "look: ", picture(1), " what?", n=2)
    assert len((await beside).tokens) == 200
    monkeypatch.undo()
    assert len((await ask(engine, "look: ", picture(1), " what?")).tokens) == 24
    assert engine.active == 0


async def test_a_piece_of_an_image_that_fails_or_is_interrupted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make("qwen2vl_merger", batch_size=32, slots=1, prompt_cache=0)
    large = picture(4, 220, 150)
    whole = await ask(engine, "look: ", large, " what?")
    await ask(engine, "something else")
    decode, results = Context.decode_embeddings, [0, 0, 2, 0, 0, -3]

    def decode_embeddings(self: Context, *args: Any, **fields: Any) -> int:
        planned = results.pop(0) if results else 0
        return planned or decode(self, *args, **fields)

    monkeypatch.setattr(Context, "decode_embeddings", decode_embeddings)
    with pytest.raises(ServiceFailed, match="status -3"):
        await ask(engine, "look: ", large, " what?")
    assert not results
    results += [0, 2, 0, 2]
    assert (await ask(engine, "look: ", large, " what?")).equals(whole)
    results += [0, 1]  # no room, and nobody else to make any
    assert (await ask(engine, "no: ", large, " what?")).reason == "length"
    assert (await ask(engine, "look: ", large, " what?")).equals(whole)
    assert engine.active == 0


async def test_an_image_that_must_be_seen_at_once_needs_a_batch_for_it(make: Make) -> None:
    assert (await make(batch_size=2048))._seat.loaded.context.most_at_once == 512
    engine = await make("gemma3", batch_size=2048)
    assert engine._seat.loaded.context.most_at_once == 2048
    engine._seat.loaded.context.most_at_once = 15
    with pytest.raises(InvalidParameters, match="set batch_size to 16 or more"):
        await ask(engine, "look: ", picture(1), " what?")
    with pytest.raises(ValueError, match="a batch of 16 embeddings"):
        engine._seat.loaded.context.decode_embeddings(0, None, [], 16, causal=False)


async def test_an_image_counts_for_the_length_of_the_prompt(make: Make) -> None:
    engine = await make("qwen2vl_merger", context_size=100)
    with pytest.raises(InvalidParameters, match="100"):
        await ask(engine, "look: ", picture(4, 300, 300), " what?")


TYPED = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}!"


async def test_templates_that_want_a_list_of_parts_get_one(make: Make) -> None:
    engine = await make(chat_template=TYPED)
    one, other = [await ask(engine, "a", picture(seed), "b") for seed in (1, 2)]
    assert one.tokens != other.tokens
    assert one.usage.prompt_tokens == len("ab!") + 16


@pytest.mark.parametrize(
    ("template", "words"),
    [("{{ 'x' }}", "leaves out the image"), ("{{ messages[0].content }}", "ends with an image")],
)
async def test_templates_in_which_an_image_has_no_place(
    make: Make, template: str, words: str
) -> None:
    engine = await make(chat_template=template)
    with pytest.raises(InvalidParameters, match=words):
        await ask(engine, "a", picture(1))


# Over HTTP.


@pytest.fixture(scope="module")
def sighted(launch: Launch, folder: Path) -> Worker:
    return launch("--model", str(folder / "mlp" / "tiny.gguf"), "--name", "tiny")


@pytest.fixture
def client(sighted: Worker) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{sighted.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("form", "mime"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_openais_client_shows_an_image(client: openai.OpenAI, form: str, mime: str) -> None:
    def look(seed: int) -> str:
        url = data_url(picture(seed, form=form), mime)
        parts: Any = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": url, "detail": "auto"}},
        ]
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": parts}], max_tokens=30,
            temperature=0, logprobs=True, extra_body={"ignore_eos": True},
        )  # fmt: skip
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 16
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        return "".join(each.token for each in logprobs.content or ())

    assert look(1) == look(1) != look(2)


def part(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", **fields}]}]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"image_url": {"url": "https://example.org/a.png"}}, "not fetched"),
    ({"image_url": {"url": "file:///etc/passwd"}}, "not fetched"),
    ({"image_url": {"url": "/etc/passwd"}}, "not fetched"),
    ({"image_url": {"url": "data:image/png,plain"}}, "data URL"),
    ({"image_url": {"url": "data:image/png;base64,%%%"}}, "base64"),
    ({"image_url": {"url": "data:image/png;base64,"}}, "cannot be decoded"),
    ({"image_url": {"url": 5}}, "'url'"),
    ({"image_url": None}, "'url'"),
    ({}, "'url'"),
    ({"image_url": {"url": data_url(picture(1)), "detail": "low"}}, "detail"),
    ({"image_url": {"url": data_url(picture(1)), "detail": []}}, "detail"),
    ({"image_url": data_url(picture(1)[:900])}, "cannot be decoded"),
    ({"image_url": data_url(b"RIFF" + bytes(99))}, "cannot be decoded"),
    ({"image_url": data_url(picture(1, 303, 3))}, "303 x 3"),
    ({"image_url": data_url(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\x7f" * 40)}, "decoded"),
]


@pytest.mark.parametrize(("fields", "words"), BAD)
def test_bad_images_are_told(sighted: Worker, fields: dict[str, Any], words: str) -> None:
    body = {"model": "tiny", "messages": part(**fields), "max_tokens": 2}
    answer = sighted.client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, -4), answer.text
    assert words in answer.json()["message"]
    assert answer.json()["details"]["field"].startswith("messages[0].content[0]")
    assert sighted.chat(max_tokens=1).is_success


def test_there_may_be_only_so_many_images_and_nothing_else(sighted: Worker) -> None:
    tiny = picture(1, 8, 8)
    many = sighted.chat(messages=shown(*[tiny] * 17), max_tokens=1)
    assert "one image too many" in many.json()["message"]
    sound = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]
    assert "neither text nor an image" in sighted.chat(messages=sound).json()["message"]


def test_a_model_without_a_projector_says_what_to_do(worker: Worker) -> None:
    answer = worker.chat(messages=shown("look", picture(1)), max_tokens=1)
    assert (answer.status_code, answer.json()["code"]) == (400, -4)
    assert "mmproj" in answer.json()["message"]


def test_damaged_images_never_end_the_worker(sighted: Worker) -> None:
    source = random.Random(9)
    seen: set[int] = set()
    for number in range(150):
        form = source.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP"])
        data = bytearray(picture(number, source.randint(1, 60), source.randint(1, 60), form))
        for _ in range(source.randint(0, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        answer = sighted.chat(messages=shown("look", bytes(data), "?"), max_tokens=1)
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400), answer.text
    assert seen == {200, 400}
    assert sighted.process.poll() is None


def test_images_do_not_pile_up(launch: Launch, folder: Path) -> None:
    settings = json.dumps({"prompt_cache": 1})
    path = str(folder / "mlp" / "tiny.gguf")
    worker = launch("--model", path, "--name", "tiny", "--settings", settings)
    process = psutil.Process(worker.process.pid)

    pictures = [picture(number, 400, 400, "BMP") for number in range(7)]

    def look(number: int) -> int:
        messages = shown("look", pictures[number % 7], "?")
        return worker.chat(messages=messages, max_tokens=8).status_code

    def round_() -> int:
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(look, range(24))) == {200}
        return process.memory_info().rss

    hello = [{"role": "user", "content": "Hello"}]
    assert worker.chat(messages=hello, logprobs=True).status_code == 200  # numpy comes in
    round_()
    first = round_()
    assert max(round_(), round_()) - first < 12 * 2**20  # 48 pictures have 23 MB of pixels
