"""Options in llama-server's words, cache types, and settings that cannot work together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.kinds import write_tiny_heads
from plugins.llamacpp.tests.test_batching import complete, metric, text
from plugins.llamacpp.tests.tiny_bert import Bert
from plugins.llamacpp.tests.workers import Launch

from aiplayground.errors import InvalidSettings
from aiplayground.gguf import read_gguf
from aiplayground_llamacpp.extras import Extras, extras_of
from aiplayground_llamacpp.machine import cache_bytes
from aiplayground_llamacpp.settings import CacheType, ModelOptions, Settings
from aiplayground_llamacpp.tuning import CACHE_TYPES, check_model, check_settings, head_size


def extras(line: str) -> Extras:
    return extras_of(line.split())


def test_words_become_fields() -> None:
    found = extras(
        "--rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 4096 --yarn-ext-factor -1 -nkvo "
        "--no-repack -sm row -mg 1 -ub 64 --swa-full"
    )
    assert found.context == {
        "rope_scaling_type": 2,
        "rope_freq_scale": 0.25,
        "yarn_orig_ctx": 4096,
        "yarn_ext_factor": -1.0,
        "offload_kqv": False,
        "n_ubatch": 64,
        "swa_full": True,
    }
    assert found.model == {"use_extra_bufts": False, "split_mode": 2, "main_gpu": 1}
    assert extras("-ts 3,1 --numa isolate").tensor_split == (3.0, 1.0)
    assert extras("--numa isolate").numa == 2
    assert extras("") == Extras()


def test_the_last_word_counts() -> None:
    assert extras("-nkvo --kv-offload").context == {"offload_kqv": True}


def test_overrides_of_metadata() -> None:
    found = extras("--override-kv a.b=int:-3,c=float:0.5 --override-kv d=bool:true,e=str:x=y:z")
    assert found.overrides == [
        ("a.b", "int", -3),
        ("c", "float", 0.5),
        ("d", "bool", True),
        ("e", "str", "x=y:z"),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--rope-freq-bse 3", "did you mean '--rope-freq-base'"),
        ("--jinja", "engine = 'llama-server'"),
        ("10000", "'10000'"),
        ("-c 4096", "'context_size'"),
        ("--lora x", "adapters"),
        ("--rope-freq-base", "needs a value"),
        ("--rope-freq-base x", "'x'"),
        ("--rope-freq-base nan", "'nan'"),
        ("--rope-scale 0", "'0'"),
        ("--rope-scaling longer", "'longer'"),
        ("-ub 0", "'0'"),
        ("-tb 100000", "'100000'"),
        ("-mg 1.5", "'1.5'"),
        ("-ts 1,x", "as in 3,1"),
        ("--numa yes", "distribute"),
        ("--override-kv a", "KEY=TYPE:VALUE"),
        ("--override-kv a=int:x", "KEY=TYPE:VALUE"),
        ("--override-kv a=int:9223372036854775808", "KEY=TYPE:VALUE"),
        ("--override-kv a=bool:yes", "KEY=TYPE:VALUE"),
        ("--override-kv =int:1", "KEY=TYPE:VALUE"),
        (f"--override-kv a=str:{'x' * 128}", "KEY=TYPE:VALUE"),
        (f"--override-kv {'x' * 128}=int:1", "KEY=TYPE:VALUE"),
    ],
)
def test_what_is_wrong_is_said(line: str, told: str) -> None:
    with pytest.raises(InvalidSettings, match="extra_arguments") as caught:
        extras(line)
    assert told.casefold() in caught.value.message.casefold()


def test_every_cache_type_has_a_number() -> None:
    assert set(CACHE_TYPES) == set(CacheType.__args__)  # type: ignore[attr-defined]  # a Literal's


def test_small_values_need_flash_attention() -> None:
    with pytest.raises(InvalidSettings, match="flash_attention"):
        check_settings(Settings(cache_type_v="q8_0", flash_attention="off"))
    check_settings(Settings(cache_type_v="bf16", flash_attention="off"))
    check_settings(Settings(cache_type_k="q8_0", flash_attention="off"))


def test_a_draft_model_needs_the_other_engine(model_path: Path) -> None:
    settings = Settings(models={"tiny": ModelOptions(draft="small")})
    gguf = read_gguf(model_path)
    with pytest.raises(InvalidSettings, match="engine = 'llama-server'"):
        check_model(settings, gguf, "tiny")
    check_model(settings, gguf, "other")


def test_the_memory_that_a_context_takes(model_path: Path) -> None:
    gguf = read_gguf(model_path)
    whole = cache_bytes(gguf, 100)
    assert whole is not None
    assert cache_bytes(gguf, 100, ("f32", "f32")) == 2 * whole
    assert cache_bytes(gguf, 100, ("f16", "q4_0")) == int(whole * (16 + 4.5) / 32)


@pytest.mark.engine
def test_blocks_must_fit_into_heads(launch: Launch, model_path: Path) -> None:
    assert head_size(read_gguf(model_path), "key") == 16
    worker = launch("--settings", json.dumps({"cache_type_k": "q8_0"}))
    refused = worker.load(model_path, "tiny")
    assert "cache_type_k" in refused.json()["message"]
    assert worker.client.get("/health").json()["model"] is None


@pytest.mark.engine
def test_embeddings_are_as_they_were(launch: Launch, tmp_path: Path) -> None:
    model = Bert()
    settings = {"cache_type_k": "q8_0", "extra_arguments": ["-ub", "4", "--rope-freq-base", "9"]}
    path = str(model.write(tmp_path / "bert.gguf"))
    worker = launch("--model", path, "--name", "tiny", "--settings", json.dumps(settings))
    body = {"model": "tiny", "input": "the quick brown fox"}
    vector = worker.client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert vector == pytest.approx(list(model.vector("the quick brown fox")), abs=2e-3)


@pytest.mark.engine
@pytest.mark.parametrize("kinds", [("q8_0", "q8_0"), ("q4_0", "f16"), ("bf16", "bf16")])
def test_contexts_of_other_types(launch: Launch, tmp_path: Path, kinds: tuple[str, str]) -> None:
    path = write_tiny_heads(tmp_path / "heads.gguf")
    settings = {"cache_type_k": kinds[0], "cache_type_v": kinds[1], "slots": 1}
    worker = launch("--model", str(path), "--name", "tiny", "--settings", json.dumps(settings))
    first = text(complete(worker, "a long conversation " * 8))
    complete(worker, "x" * 60)
    assert text(complete(worker, "a long conversation " * 8)) == first
    assert metric(worker, "restored_tokens") > 100


@pytest.mark.engine
def test_options_have_their_effect(launch: Launch, model_path: Path) -> None:
    def answer(*words: str) -> str:
        settings = json.dumps({"extra_arguments": words})
        worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
        return text(complete(worker, "a conversation " * 4, max_tokens=60, ignore_eos=True))

    plain, stretched = answer(), answer("--rope-freq-base", "500")
    assert answer("--override-kv", "llama.rope.freq_base=float:500") == stretched != plain
    harmless = "-ub 64 --no-repack -sm layer -ts 1,2 --no-kv-offload --numa distribute"
    assert answer(*harmless.split()) == plain


@pytest.mark.engine
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"extra_arguments": ["--jinja"]}, "--jinja"),
        ({"extra_arguments": ["-ts", ",".join(["1"] * 300)]}, "at most"),
        ({"cache_type_v": "q8_0", "flash_attention": "off"}, "cache_type_v"),
        ({"models": {"tiny": {"draft": "small"}}}, "draft"),
    ],
)
def test_a_worker_ends_with_what_is_wrong(
    launch: Launch, model_path: Path, settings: dict[str, Any], told: str
) -> None:
    words = ("--model", str(model_path), "--name", "tiny", "--settings", json.dumps(settings))
    worker = launch(*words, ready=False)
    assert worker.process.wait(60) == 1
    assert "AIPG-ERROR" in worker.stderr
    assert told in worker.stderr
