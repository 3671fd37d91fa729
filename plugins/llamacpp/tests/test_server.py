"""llama-server's side, without one: command lines, requests, answers, logs, devices."""

from __future__ import annotations

import asyncio
import io
import math
import sys
from base64 import b64decode
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from plugins.llamacpp.tests.test_plugin import local
from plugins.llamacpp.tests.tiny_parts import projector_pairs, write_gguf

from aiplayground.errors import (
    AIPlaygroundError,
    InvalidParameters,
    InvalidSettings,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.gguf import read_gguf
from aiplayground.specs import Device
from aiplayground.types import CompletionRequest, RerankRequest
from aiplayground_llamacpp import devices
from aiplayground_llamacpp.adapters import LoraFile
from aiplayground_llamacpp.backends import CPU, GPU, IGPU, Backend, choose
from aiplayground_llamacpp.enginelog import ERROR, INFO, WARN
from aiplayground_llamacpp.pictures import Picture
from aiplayground_llamacpp.ranking import Frame
from aiplayground_llamacpp.sampling import SamplerPlan, Step, plan
from aiplayground_llamacpp.server import argv
from aiplayground_llamacpp.server.answer import AnswerReader, refusal
from aiplayground_llamacpp.server.child import environment, parse_line
from aiplayground_llamacpp.server.launch import server_spec
from aiplayground_llamacpp.server.merge import merged
from aiplayground_llamacpp.server.program import parse_devices, short_version
from aiplayground_llamacpp.server.ranking import make_pairs
from aiplayground_llamacpp.server.request import Task, body_of
from aiplayground_llamacpp.server.seeing import Eyes, Scene, tokens_at_once
from aiplayground_llamacpp.settings import Settings
from aiplayground_llamacpp.sight import Words as Prompt

MODEL = argv.Model(Path("/m.gguf"), 4096, 8, 4)


def line(model: argv.Model = MODEL, **fields: Any) -> list[str]:
    return argv.writer("llama-server", model, Settings(**fields))


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_command_line_says_all_settings() -> None:
    words = line()
    assert words[:3] == ["llama-server", "--model", "/m.gguf"]
    assert (value(words, "--host"), value(words, "--port")) == ("127.0.0.1", "0")
    assert (value(words, "--parallel"), value(words, "--ctx-size")) == ("8", "32768")
    assert value(words, "--load-mode") == "mmap"
    assert {"--no-ui", "--offline", "--no-kv-unified"} <= set(words)
    assert not {"--device", "--n-gpu-layers", "--api-key"} & set(words)
    words = line(
        gpu_layers=3, devices=("CUDA0", "CUDA1"), cache_type_k="q8_0", flash_attention="on",
        memory_map=False, lock_memory=True, check_tensors=True, verbose=True, batch_size=64,
        extra_arguments=("--rope-freq-base", "10000"),
    )  # fmt: skip
    assert value(words, "--n-gpu-layers") == "3"
    assert value(words, "--device") == "CUDA0,CUDA1"
    assert value(words, "--cache-type-k") == "q8_0"
    assert value(words, "--flash-attn") == "on"
    assert value(words, "--load-mode") == "mlock"
    assert (value(words, "--batch-size"), value(words, "--ubatch-size")) == ("64", "64")
    assert words[-2:] == ["--rope-freq-base", "10000"]


def test_the_command_line_says_what_one_model_has() -> None:
    model = MODEL._replace(
        adapters=(LoraFile(Path("/a.gguf"), 1), LoraFile(Path("/b.gguf"), 0.5)),
        projector=Path("/p.gguf"),
        draft=Path("/d.gguf"),
    )
    words = line(model)
    assert value(words, "--lora") == "/a.gguf"
    assert value(words, "--lora-scaled") == "/b.gguf:0.5"
    assert value(words, "--mmproj") == "/p.gguf"
    assert value(words, "--model-draft") == "/d.gguf"
    assert "--no-mmproj-offload" not in words
    assert "--no-mmproj-offload" in line(model, gpu_layers=0)
    for path in ("/a,b.gguf", "C:/a.gguf"):
        with pytest.raises(InvalidSettings, match="commas"):
            line(MODEL._replace(adapters=(LoraFile(Path(path), 2),)))
    words = line(MODEL._replace(stretch="llama.context_length"))
    assert value(words, "--override-kv") == "llama.context_length=int:4096"


def test_embeddings_are_computed_in_one_piece() -> None:
    words = argv.embedder("x", MODEL, Settings(), pooling="mean")
    assert {value(words, name) for name in ("--ctx-size", "--batch-size", "--ubatch-size")} == {
        "4096"
    }
    assert value(words, "--pooling") == "mean"
    assert "--pooling" not in argv.embedder("x", MODEL, Settings(), pooling=None)


def test_a_batch_holds_an_image_that_is_seen_as_a_whole() -> None:
    def sizes(at_once: int, batch: int) -> list[str]:
        words = line(MODEL._replace(at_once=at_once), batch_size=batch)
        return [value(words, "--batch-size"), value(words, "--ubatch-size")]

    assert sizes(0, 2048) == ["2048", "512"]
    assert sizes(256, 64) == ["256", "256"]
    assert sizes(1120, 2048) == ["2048", "1120"]


@pytest.mark.parametrize(
    ("context", "free", "slots"),
    [(None, None, 8), (2**20, None, 8), (2**28, None, 1), (2**30, 2**34, 4), (2**35, 2**34, 1)],
)
def test_each_answer_has_a_context_of_its_own(
    context: int | None, free: int | None, slots: int
) -> None:
    assert argv.slots_for(8, context, free) == slots


def test_how_its_worker_is_launched() -> None:
    settings = Settings(engine="llama-server", threads=3)
    spec = server_spec(settings, Path("/bin/llama-server"), local("a"), name="main")
    assert spec.argv[:3] == [sys.executable, "-m", "aiplayground_llamacpp.server.worker"]
    assert not spec.ours  # the guard ends what the worker leaves
    assert '"llama_server":"/bin/llama-server"' in spec.argv[-1]
    assert (spec.primary, spec.model) == (True, "a")


def test_the_key_is_not_on_the_command_line() -> None:
    source = {
        "PATH": "/bin",
        "LLAMA_ARG_PORT": "1",
        "LLAMA_API_KEY": "theirs",
        "AIPG_WORKER_TOKEN": "t",
    }
    found = environment(source, "ours")
    assert found["LLAMA_API_KEY"] == "ours"
    assert found["PATH"] == "/bin"
    assert not {"LLAMA_ARG_PORT", "AIPG_WORKER_TOKEN"} & set(found)


@pytest.mark.parametrize(
    ("text", "level", "rest"),
    [
        ("0.00.325.274 I srv  llama_server: listening", INFO, "listening"),
        ("0.00.325.274 W cmn  load: odd", WARN, "odd"),
        ("0.00.325.274 E srv    load_model: failed to load", ERROR, "failed to load"),
        ("error: invalid argument: --x", ERROR, "error: invalid argument: --x"),
    ],
)
def test_lines_of_its_log(text: str, level: int, rest: str) -> None:
    assert parse_line(text) == (level, rest)


# Requests ---------------------------------------------------------------------------------


def task(limit: int = 9, **fields: Any) -> Task:
    made: dict[str, Any] = {"prompt": [1, 2], "plan": SamplerPlan((Step("greedy"),)), **fields}
    return Task(limit=limit, size=99, **made)


def test_every_sampler_is_told_with_its_values() -> None:
    request = CompletionRequest.model_validate(
        {
            "model": "m", "prompt": "x", "temperature": 0.7, "top_k": 5, "top_p": 0.9,
            "min_p": 0.1, "typical_p": 0.5, "repeat_penalty": 1.2, "seed": 7, "ignore_eos": True,
            "logit_bias": {"3": 2, "4": -100},
        }
    )  # fmt: skip
    body = body_of(task(plan=plan(request, 100), logprobs=0, stops=["x"], shown=["<t>"]), 1)
    assert body["samplers"] == [
        "penalties", "top_k", "typ_p", "top_p", "min_p", "temperature",
    ]  # fmt: skip
    told = {name: body[name] for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")}
    assert told == {
        "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.5,
    }  # fmt: skip
    assert (body["repeat_penalty"], body["repeat_last_n"], body["seed"]) == (1.2, 64, 8)
    assert body["logit_bias"] == [[3, 2.0], [4, False]]
    assert (body["ignore_eos"], body["n_probs"], body["preserved_tokens"]) == (True, 1, ["<t>"])
    assert "stop" not in body
    assert body_of(task(), 0)["temperature"] == 0
    assert body_of(task(), 0)["samplers"] == ["temperature"]


# Answers ----------------------------------------------------------------------------------


def piece(content: str, count: int, **more: Any) -> dict[str, Any]:
    return {"content": content, "stop": False, "tokens_predicted": count, **more}


def end(kind: str, count: int) -> dict[str, Any]:
    return {"content": "", "stop": True, "stop_type": kind, "tokens_predicted": count,
            "timings/cache_n": 1}  # fmt: skip


def read(made: Task, *events: dict[str, Any]) -> list[Any]:
    reader = AnswerReader(made, 0)
    return [chunk for event in events if (chunk := reader.take(event)) is not None]


def test_an_answer_that_ends_by_itself() -> None:
    chunks = read(task(), piece("a", 1), piece("b", 2), piece("", 3), end("eos", 3))
    assert [chunk.text for chunk in chunks] == ["a", "b", ""]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.cached_tokens) == (3, 1)


def test_the_last_text_comes_with_the_reason() -> None:
    chunks = read(task(2), piece("a", 1), piece("b", 2), end("limit", 2))
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("a", None), ("b", "length")]


def test_a_stop_text_ends_the_answer_where_it_begins() -> None:
    chunks = read(task(stops=["xy"]), piece("ax", 1, timings={"cache_n": 4}), piece("yz", 2))
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("a", None), ("", "stop")]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.cached_tokens == 4
    held = read(task(1, stops=["xy"]), piece("ax", 1), end("limit", 1))
    assert [chunk.text for chunk in held] == ["ax"]


def test_probabilities_are_those_of_the_text() -> None:
    def entry(text: str, logprob: float | None) -> dict[str, Any]:
        return {"token": text, "bytes": list(text.encode()), "logprob": logprob}

    def event(text: str, count: int) -> dict[str, Any]:
        told = {**entry(text, -0.5), "top_logprobs": [entry("q", None), entry("r", -math.inf)]}
        return piece(text, count, completion_probabilities=[told])

    made = task(logprobs=1, stops=["c"])
    chunks = read(made, event("a", 1), event("c", 2))
    (only,) = [each for chunk in chunks for each in chunk.logprobs or ()]
    assert (only["token"], only["logprob"]) == ("a", -0.5)
    assert only["top_logprobs"] == [{"token": "q", "bytes": [113], "logprob": -9999.0}]
    without = read(task(logprobs=0), event("a", 1), event("", 2), end("eos", 2))
    entries = [each for chunk in without for each in chunk.logprobs or ()]
    assert [each["top_logprobs"] for each in entries] == [[]]


def seen(content: str, count: int, prompt: int = 90) -> dict[str, Any]:
    return piece(content, count, tokens_evaluated=prompt, timings={"cache_n": 2})


def test_the_length_of_a_prompt_with_images_comes_with_the_answer() -> None:
    made = task(50, prompt=[], scene=Scene("x", ()))
    chunks = read(made, *(seen("a", n) for n in range(1, 11)))
    assert "".join(chunk.text for chunk in chunks) == "a" * 9
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 90
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.cached_tokens) == (9, 2)
    ended = read(made, *(seen("a", n) for n in range(1, 9)), seen("", 9), end("eos", 9))
    assert ended[-1].finish_reason == "stop"
    with pytest.raises(InvalidParameters, match="99 tokens and the context holds 99"):
        read(made, seen("a", 1, 99))


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (500, "Failed to tokenize prompt", InvalidParameters, "image of this size"),
        (413, "no reason", InvalidParameters, "fewer or smaller"),
        (400, "failed to parse grammar", InvalidParameters, "grammar"),
        (400, "Prompt contains invalid tokens", InvalidParameters, "invalid tokens"),
        (503, "Loading model", ServiceNotAvailable, "Loading model"),
        (500, "Compute error.", ServiceFailed, "Compute error"),
    ],
)
def test_its_errors_have_our_codes(
    status: int, message: str, kind: type[AIPlaygroundError], words: str
) -> None:
    error = refusal(status, {"error": {"message": message, "code": status}})
    assert type(error) is kind
    assert words in error.message
    with pytest.raises(kind):
        AnswerReader(task(), 0).take({"error": {"message": message, "code": status}})


def test_a_prompt_that_is_too_long_is_told_as_by_the_other_engine() -> None:
    told = {"type": "exceed_context_size_error", "n_prompt_tokens": 300, "n_ctx": 256}
    error = refusal(400, {"error": {"message": "x", **told}})
    assert isinstance(error, InvalidParameters)
    assert error.details == {"tokens": 300, "limit": 256}


# Texts ------------------------------------------------------------------------------------


class Words:
    """A tokenizer of one token for each letter; `<s>` begins texts, and is one token."""

    bos_text = "<s>"

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        text = text.replace("<s>", "\0") if parse_special else text
        return [0] * add_special + [ord(letter) for letter in text]

    def control_texts(self) -> tuple[str, ...]:
        return ("<s>",)

    def with_texts(self, texts: Any) -> Words:
        return self


def test_a_prompt_with_images_is_text_with_markers() -> None:
    eyes = Eyes(Words(), "<m>")
    look = Picture(2, 1, b"abcdef", "")
    parts: list[Prompt | Picture] = [
        Prompt("<s>a<m>", True), look, Prompt("<s>", False), Prompt("b", True),
    ]  # fmt: skip
    assert eyes.read(parts, add_special=False) == ([], ())
    assert eyes.scene is not None
    assert eyes.scene.text == "a<\u200bm\u200b><m><\u200bs\u200b>b"
    (file,) = eyes.scene.files
    with Image.open(io.BytesIO(b64decode(file))) as image:
        assert (image.format, image.size, image.tobytes()) == ("PNG", (2, 1), b"abcdef")
    body = body_of(task(prompt=[], scene=eyes.scene), 0)
    assert body["prompt"] == {"prompt_string": eyes.scene.text, "multimodal_data": [file]}
    eyes.read([Prompt("<s>a", True)], add_special=True)
    assert eyes.scene.text.startswith("<s>")
    with pytest.raises(InvalidParameters, match="ends with an image"):
        eyes.read([look], add_special=True)


def test_pairs_are_sent_as_texts_that_hold_no_control_tokens() -> None:
    request = RerankRequest(model="m", query="{document}", documents=["<s>", "b"])
    pairs = make_pairs(Words(), "{query} {document}", request, 99)  # type: ignore[arg-type]  # all that is asked of it
    assert pairs.documents == ["<\u200bs\u200b>", "b"]
    assert pairs.query == "\u200b".join("{document}")
    assert pairs.lengths == [19 + 1 + 5, 19 + 1 + 1]
    framed = make_pairs(Words(), Frame((0, 0), (), ()), request, 99)  # type: ignore[arg-type]  # all that is asked of it
    assert framed == ("{document}", ["<s>", "b"], [15, 13])


@pytest.mark.parametrize(
    ("kind", "changed", "expected"),
    [
        ("mlp", {}, 0),
        ("gemma3", {}, 16),
        ("gemma4v", {}, 1120),
        ("gemma3", {"scale": b""}, 1),
    ],
)
def test_tokens_of_an_image_that_is_seen_as_a_whole(
    tmp_path: Path, kind: str, changed: dict[str, bytes], expected: int
) -> None:
    pairs = [pair for pair in projector_pairs(kind, **changed) if pair]
    file = read_gguf(write_gguf(tmp_path / "mmproj.gguf", pairs, {}))
    assert tokens_at_once(file) == expected


async def numbers(*given: int, fail: bool = False) -> AsyncGenerator[int, None]:
    for number in given:
        await asyncio.sleep(0)
        yield number
    if fail:
        raise ValueError("broken")


async def test_several_answers_come_as_they_are_made() -> None:
    found = [each async for each in merged([numbers(1, 2), numbers(3), numbers()])]
    assert sorted(found) == [1, 2, 3]
    assert [each async for each in merged([numbers(1, 2)])] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        [each async for each in merged([numbers(1, fail=True), numbers(2)])]


# Devices ----------------------------------------------------------------------------------

LISTED = """\
Available devices:
  CUDA0: NVIDIA H200 (143156 MiB, 142000 MiB free)
  Vulkan1: Intel(R) Arc(TM) A770 Graphics (DG2) (16032 MiB, 14428 MiB free)
"""


def test_what_llama_server_lists() -> None:
    assert parse_devices(LISTED) == [
        ("CUDA0", "NVIDIA H200", 143156 * 2**20, 142000 * 2**20),
        ("Vulkan1", "Intel(R) Arc(TM) A770 Graphics (DG2)", 16032 * 2**20, 14428 * 2**20),
    ]
    assert parse_devices("Available devices:\n  (none)\n") == []


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("0.5.0-dev (build 11146, commit 7fe450e19)", "b11146"),
        ("0.5.0-dev (build 1, commit 0c1e570)", "0.5.0-dev (build 1, commit 0c1e570)"),
        ("6123 (79c1160b)", "b6123"),
    ],
)
def test_versions_as_people_name_them(told: str, version: str) -> None:
    assert short_version(told) == version


def test_a_device_that_is_not_there_is_told_with_those_that_are() -> None:
    found = [Backend("CUDA0", "x", GPU, 1, 7), Backend("CUDA1", "y", GPU, 1, 8)]
    assert [each.pointer for each in choose(["CUDA1", "CUDA0"], found)] == [8, 7]
    with pytest.raises(InvalidSettings, match="There are: CUDA0, CUDA1"):
        choose(["Vulkan0"], found)


def test_kinds_of_devices() -> None:
    assert devices.kind_of(CPU, "AMD EPYC") == "CPU"
    assert devices.kind_of(GPU, "Intel(R) Arc(TM) A770 Graphics") == "Arc"
    assert devices.kind_of(IGPU, "Intel Iris Xe") == "iGPU"
    assert devices.kind_of(GPU, "NVIDIA H200") == "GPU"
    twice = [Device(id="a", name=name, kind="GPU") for name in ("first", "second")]
    assert [each.name for each in devices.unique(twice)] == ["first"]


@pytest.mark.engine
def test_the_devices_here() -> None:
    assert "CPU" in {device.kind for device in devices.detect()}


def test_an_engine_that_hangs_or_breaks_shows_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "DEADLINE", 0.4)
    program = tmp_path / "llama-server"
    for text in ("exec sleep 30", "exit 3", "echo nothing"):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        assert devices.server_devices(str(program)) == []
    monkeypatch.setattr(devices, "MODULE", "no.such.module")
    assert devices.python_devices() == []
