"""Write small models in formats other than GGUF, sound or broken in one chosen place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LORA = ("lora_unet_down.lora_down.weight", "lora_unet_down.lora_up.weight")
VAE = ("encoder.conv_in.weight", "decoder.conv_in.weight")
UNET = ("model.diffusion_model.input_blocks.0.0.weight",)
CHECKPOINT = (*UNET, "first_stage_model.decoder.conv_in.weight", "cond_stage_model.x.weight")
CONTROLNET = ("control_model.input_hint_block.0.weight",)


def safetensors(
    path: Path,
    names: Sequence[str] = LORA,
    *,
    shape: Sequence[int] = (2, 2),
    dtype: str = "F16",
    metadata: Mapping[str, str] | None = None,
    cut: int = 0,
) -> Path:
    size = 2
    for length in shape:
        size *= length
    tensors: dict[str, Any] = {
        name: {"dtype": dtype, "shape": list(shape), "data_offsets": [n * size, (n + 1) * size]}
        for n, name in enumerate(names)
    }
    if metadata:
        tensors["__metadata__"] = dict(metadata)
    header = json.dumps(tensors).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(size * len(names))
    return write(path, data[: len(data) - cut])


def write(path: Path, data: bytes | str | Mapping[str, Any] = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, Mapping):
        data = json.dumps(data)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def transformers(folder: Path, **config: Any) -> Path:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": 4096,
        **config,
    }
    write(folder / "config.json", config)
    write(folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    safetensors(folder / "model.safetensors", ["model.layers.0.self_attn.q_proj.weight"])
    return folder


def openvino(folder: Path, **config: Any) -> Path:
    write(folder / "config.json", {"architectures": ["Qwen2ForCausalLM"], **config})
    write(folder / "openvino_model.xml", "<net/>")
    write(folder / "openvino_model.bin", bytes(10))
    write(folder / "openvino_config.json", {"dtype": "int4"})
    write(folder / "tokenizer.json", "{}")
    return folder
