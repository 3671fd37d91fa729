"""What a model will take, compared with what llama.cpp says that it took."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins.llamacpp.tests.kinds import write_gemma, write_lfm2, write_mamba, write_rwkv
from plugins.llamacpp.tests.kinds import write_tiny_heads as write_heads

from aiplayground.gguf import GgufFile, read_gguf
from aiplayground.specs import Device
from aiplayground_llamacpp.admission import together
from aiplayground_llamacpp.bindings import EngineLog, load_bindings
from aiplayground_llamacpp.context import Context
from aiplayground_llamacpp.estimate import Files, cache_size, estimate, plan_of
from aiplayground_llamacpp.layers import Layer, layers_of
from aiplayground_llamacpp.native import Model
from aiplayground_llamacpp.settings import Settings

MIB = 2**20
_SIZE = re.compile(r"(KV|RS|compute|output)\s+buffer size\s*=\s*([\d.]+) MiB")


def told_by_the_engine(gguf: GgufFile, settings: Settings, cells: int) -> dict[str, float]:
    """Load it and return the sizes of its buffers in MiB, as the engine's log has them."""
    lines: list[str] = []
    lib = load_bindings()
    log = EngineLog(lines.append, verbose=True)
    log.install(lib)
    lib.llama_backend_init()
    model = Model(lib, log, gguf.path, settings, lambda _: True)
    context = Context(model, log, settings, size=cells, cells=cells)
    context.close()
    model.close()
    found: dict[str, float] = {}
    for line in lines:
        if (match := _SIZE.search(line)) is not None:
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


@pytest.mark.engine
@pytest.mark.parametrize("write", [write_heads, write_gemma, write_mamba, write_lfm2, write_rwkv])
@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("types", ["f16", "q8_0"])
def test_the_engine_takes_what_was_said(
    tmp_path: Path, write: Callable[[Path], Path], types: str, unified: bool
) -> None:
    if types == "q8_0" and write is not write_heads:
        pytest.skip("its heads are smaller than a block of a quantised cache")
    gguf = read_gguf(write(tmp_path / "m.gguf"))
    settings = Settings.model_validate(
        {"cache_type_k": types, "cache_type_v": types, "kv_unified": unified}
    )
    layers = layers_of(gguf)
    assert layers is not None
    plan = plan_of(gguf, layers, settings)
    took = told_by_the_engine(gguf, settings, plan.cells * plan.streams)
    kept = took.get("KV", 0) + took.get("RS", 0)
    assert cache_size(layers, plan) / MIB == pytest.approx(kept, abs=0.05)
    made = estimate(Files(parts=(gguf,)), settings, None)
    assert made is not None
    assert made.total / MIB >= kept + took["compute"] + took["output"]
    assert made.in_main == made.total


def test_layers_on_a_device_count_there(tmp_path: Path) -> None:
    gguf = read_gguf(write_heads(tmp_path / "m.gguf"))
    device = Device(id="CUDA0", name="x", kind="GPU", memory=10**9)

    def on(layers: int) -> int:
        made = estimate(Files(parts=(gguf,)), Settings(gpu_layers=layers), device)
        assert made is not None
        assert 0 <= made.on_device <= made.total
        return made.on_device

    assert on(0) == 0
    assert 0 < on(1) < on(2) < on(3) == on(-1)


def test_what_would_save_memory_saves_it(tmp_path: Path) -> None:
    gguf = read_gguf(write_heads(tmp_path / "m.gguf"))
    settings = Settings(context_size=65536)
    made = estimate(Files(parts=(gguf,)), settings, None)
    assert made is not None
    savings = {each.change: each.bytes for each in made.savings}
    halved = settings.model_copy(update={"context_size": 32768})
    less = estimate(Files(parts=(gguf,)), halved, None)
    assert less is not None
    assert savings["Set context_size to 32768"] == made.total - less.total > 0


def test_a_window_of_the_server_is_all_that_it_keeps() -> None:
    layers = [Layer(keys=64, values=64), Layer(keys=64, values=64, window=512)]
    server = Settings(engine="llama-server", slots=1, context_size=16384)
    gguf = GgufFile(Path("m"), 0, 3, 32, 0, {"general.architecture": "gemma3"}, ())
    token = 2 * 64 * 2
    assert cache_size(layers, plan_of(gguf, layers, server)) == token * (16384 + 1024)
    python = server.model_copy(update={"engine": "python"})
    assert cache_size(layers, plan_of(gguf, layers, python)) == token * 16384 * 2


def test_latent_attention_keeps_one_vector() -> None:
    told = {
        "block_count": 2,
        "embedding_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }
    metadata = {"general.architecture": "deepseek2"}
    metadata |= {f"deepseek2.{key}": value for key, value in told.items()}  # type: ignore[misc]  # texts and numbers
    layers = layers_of(GgufFile(Path("m"), 0, 3, 32, 0, metadata, ()))
    assert layers == [Layer(keys=576, values=0)] * 2


def test_several_devices_are_one() -> None:
    first = Device(id="CUDA0", name="x", kind="GPU", memory=8, free=5)
    second = Device(id="CUDA1", name="y", kind="GPU", memory=8, free=6)
    assert together([]) is None
    assert together([first]) is first
    both = together([first, second])
    assert both is not None
    assert (both.id, both.memory, both.free) == ("CUDA0+CUDA1", 16, 11)
