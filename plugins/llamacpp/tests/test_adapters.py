"""LoRA adapters and the other options of single models."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.engines import AnyEngine, make_engine
from plugins.llamacpp.tests.tiny_model import _pair
from plugins.llamacpp.tests.tiny_parts import (
    FLOAT64,
    Tensor,
    adapter_pairs,
    adapter_tensors,
    text_pair,
    write_adapter,
    write_gguf,
    write_merged,
)
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch

from aiplayground.errors import InvalidSettings
from aiplayground.gguf import read_gguf
from aiplayground.types import ChatChunk, CompletionRequest, EmbedRequest
from aiplayground_llamacpp.adapters import EMBEDDING, fits, unsuitable
from aiplayground_llamacpp.options import model_options, option_path, options_for
from aiplayground_llamacpp.settings import Settings

pytestmark = pytest.mark.engine

ENGINES = BOTH

Load = Callable[..., Any]


@pytest.fixture(scope="module")
def adapter(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "adapter.gguf", model_path)


@pytest.fixture(params=BOTH)
async def load(model_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Load]:
    engines: list[AnyEngine] = []

    async def make(path: Path = model_path, **options: Any) -> AnyEngine:
        engine = make_engine(request.param, models={"tiny": options})
        engines.append(engine)
        await engine.open()
        await engine.load(path, "tiny", lambda fraction: None)
        return engine

    yield make
    for engine in engines:
        await engine.close()


async def ask(engine: AnyEngine, prompt: str = "Hello") -> list[ChatChunk]:
    request = CompletionRequest(
        model="tiny", prompt=prompt, max_tokens=40, temperature=0, ignore_eos=True,
        logprobs=True, top_logprobs=5,
    )  # fmt: skip
    return [chunk async for chunk in engine.complete(request)]


def entries(chunks: list[ChatChunk]) -> list[dict[str, Any]]:
    return [entry for chunk in chunks for entry in chunk.logprobs or ()]


def text(chunks: list[ChatChunk]) -> bytes:
    return b"".join(bytes(entry["bytes"]) for entry in entries(chunks))


def lora(path: Path, scale: float = 1.0) -> dict[str, Any]:
    return {"adapters": [{"path": str(path), "scale": scale}]}


async def test_an_adapter_changes_the_answer_as_much_as_its_scale_says(
    load: Load, adapter: Path
) -> None:
    plain = await ask(await load())
    assert await ask(await load(**lora(adapter, 0))) == plain
    answers = {text(await ask(await load(**lora(adapter, scale)))) for scale in (0.5, 1, -1)}
    assert len({text(plain), *answers}) == 4


@pytest.mark.parametrize("scale", [1.0, -0.5])
async def test_an_adapter_does_what_merging_it_into_the_weights_does(
    load: Load, adapter: Path, model_path: Path, tmp_path: Path, scale: float
) -> None:
    merged = await load(write_merged(tmp_path / "merged.gguf", model_path, scale))
    adapted = await load(**lora(adapter, scale))
    for prompt in ("Hello", "another beginning"):
        one, other = await ask(merged, prompt), await ask(adapted, prompt)
        assert text(one) == text(other)
        for a, b in zip(entries(one), entries(other), strict=True):
            assert a["logprob"] == pytest.approx(b["logprob"], abs=2e-3)


async def test_two_adapters_add_up(load: Load, adapter: Path) -> None:
    half = {"path": str(adapter), "scale": 0.5}
    both = await ask(await load(adapters=[half, half]))
    assert text(both) == text(await ask(await load(**lora(adapter))))


async def test_embeddings_are_adapted_too(load: Load, adapter: Path) -> None:
    request = EmbedRequest(model="tiny", input=["one"])
    plain = (await (await load()).embed(request)).vectors
    assert (await (await load(**lora(adapter, 0))).embed(request)).vectors == plain
    assert (await (await load(**lora(adapter, 1))).embed(request)).vectors != plain


async def test_a_name_without_a_folder_lies_beside_the_model(
    load: Load, model_path: Path, adapter: Path
) -> None:
    beside = model_path.parent / "beside.gguf"
    beside.write_bytes(adapter.read_bytes())
    there = await ask(await load(**lora(Path("beside.gguf"))))
    assert text(there) == text(await ask(await load(**lora(adapter))))


def swapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "output.weight.lora_a"
    one = tensors[name]
    return {**tensors, name: Tensor(one.shape[::-1], one.data)}


WRONG: list[tuple[str, Callable[[dict[str, Tensor]], dict[str, Tensor]], dict[str, bytes]]] = [
    ("architecture qwen2", dict, {"architecture": text_pair("general.architecture", "qwen2")}),
    ("not a LoRA adapter", dict, {"type": text_pair("general.type", "model")}),
    ("not a LoRA adapter", dict, {"kind": text_pair("adapter.type", "other")}),
    ("alpha", dict, {"alpha": _pair("adapter.lora.alpha", FLOAT64, struct.pack("<d", 2.0))}),
    ("shapes for 'output.weight'", swapped, {}),
    ("only one half", lambda all_: dict([*all_.items()][:-1]), {}),
    ("no tensors", lambda all_: {}, {}),
    ("no part of a LoRA", lambda all_: all_ | {"x": Tensor((1,), [0.0])}, {}),
    (
        "'blk.9.attn_q.weight'",
        lambda all_: {name.replace("blk.0", "blk.9"): each for name, each in all_.items()},
        {},
    ),
]


@pytest.mark.parametrize(("words", "change", "pairs"), WRONG)
async def test_what_is_no_adapter_for_the_model_is_refused(
    load: Load,
    model_path: Path,
    tmp_path: Path,
    words: str,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    pairs: dict[str, bytes],
) -> None:
    tensors = change(adapter_tensors(model_path))
    path = write_gguf(tmp_path / "wrong.gguf", adapter_pairs(**pairs), tensors)
    with pytest.raises(InvalidSettings, match=words) as caught:
        await load(**lora(path))
    assert "'models.tiny.adapters[0].path': wrong.gguf" in caught.value.message
    assert caught.value.details["path"] == str(path)


async def test_a_model_a_missing_and_a_broken_file_are_no_adapters(
    load: Load, model_path: Path, tmp_path: Path, adapter: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(adapter.read_bytes()[:-40])
    for path, words in [
        (model_path, "not a LoRA adapter"),
        (tmp_path / "nowhere.gguf", "does not exist"),
        (broken, "truncated"),
    ]:
        with pytest.raises(InvalidSettings, match=words):
            await load(**lora(path))


def test_embeddings_that_the_answers_are_written_with_too_stay_as_they_are(
    tmp_path: Path,
) -> None:
    halves = {f"{EMBEDDING}{half}": Tensor((4, 4), [0.0] * 16) for half in (".lora_a", ".lora_b")}
    file = read_gguf(write_gguf(tmp_path / "adapter.gguf", adapter_pairs(), halves))
    alone = {EMBEDDING: (4, 4)}
    assert "also writes its answers" in (unsuitable(file, "llama", alone) or "")
    assert unsuitable(file, "llama", {**alone, "output.weight": (4, 4)}) is None


def test_a_worker_survives_a_wrong_adapter(launch: Launch, model_path: Path, adapter: Path) -> None:
    options = {"bad": lora(model_path), "good": lora(adapter)}
    worker = launch("--settings", json.dumps({"models": {**options, "unknown": {}}}))
    answer = worker.load(model_path, "bad")
    assert (answer.status_code, answer.json()["code"]) == (400, -4)
    assert "models.bad.adapters[0].path" in answer.json()["message"]
    assert worker.load(model_path, "good").is_success
    assert worker.chat(model="good", max_tokens=2).is_success


async def test_options_of_one_model_go_before_those_for_all(load: Load) -> None:
    engine = await load(context_size=100, chat_template="{{ 'x' * 9 }}")
    assert engine.loaded is not None
    assert engine.loaded.context_length == 100
    other = await engine.load(engine.loaded.path, "other", lambda fraction: None)
    assert other.context_length == 512


def test_effective_settings() -> None:
    models = {"a": {"context_size": 0, "gpu_layers": 3}, "b": {"chat_template": "x"}}
    settings = Settings.model_validate({"context_size": 9, "models": models})
    a, b = options_for(settings, "a"), options_for(settings, "b")
    assert (a.context_size, a.gpu_layers, a.chat_template) == (0, 3, "")
    assert (b.context_size, b.gpu_layers, b.chat_template) == (9, -1, "x")
    assert options_for(settings, "c") == settings
    assert model_options(settings, "c").adapters == ()


def test_paths_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    model = Path("/models/m.gguf")
    assert option_path("a.gguf", model) == Path("/models/a.gguf")
    assert option_path("/x/a.gguf", model) == Path("/x/a.gguf")
    assert option_path("~/a.gguf", model) == Path("/home/ada/a.gguf")


@pytest.mark.parametrize(
    ("base", "shape", "a", "b", "expected"),
    [
        ("w", (8, 5), (8, 2, 1, 1), (2, 5, 1, 1), True),
        ("w", (8, 5), (8, 2, 1, 1), (3, 5, 1, 1), False),
        ("w", (8, 5), (8, 2, 2, 1), (2, 5, 2, 1), False),
        ("w", (8, 5, 3), (8, 2, 3, 1), (2, 5, 3, 1), True),
        ("token_embd.weight", (8, 50), (2, 50, 1, 1), (2, 8, 1, 1), True),
        ("token_embd.weight", (8, 50), (8, 2, 1, 1), (2, 50, 1, 1), False),
    ],
)
def test_shapes(
    base: str, shape: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], expected: bool
) -> None:
    assert fits(base, shape, a, b) is expected
