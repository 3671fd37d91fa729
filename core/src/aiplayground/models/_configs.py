"""What a folder that is one model says of itself, in its small JSON files.

Sources: `config.json` of transformers and diffusers, `adapter_config.json` of peft,
`openvino_config.json` of Optimum Intel, `model_index.json` of diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_CONFIG = 16 << 20
"""Bytes of a JSON file that are read at most; indexes of large models take half a million."""

_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")

# Endings of the class names in `architectures` or `_class_name`, and what such a model is for.
_CLASSES = (
    (re.compile(r"Whisper|Wav2Vec2|SpeechSeq2Seq|ForCTC$"), "stt"),
    (re.compile(r"TextToSpeech|TextToWaveform|Vits|Bark|Parler"), "tts"),
    (re.compile(r"CLIPVision|SiglipVision|Dinov2"), "clip_vision"),
    (re.compile(r"CLIPText|T5EncoderModel|UMT5EncoderModel"), "text_encoder"),
    (re.compile(r"^Autoencoder"), "vae"),
    (re.compile(r"ControlNet"), "controlnet"),
    (re.compile(r"^UNet|Transformer[23]DModel$"), "diffusion_model"),
    (re.compile(r"Pipeline$"), "checkpoint"),
    (re.compile(r"For(CausalLM|ConditionalGeneration)$|LMHeadModel$|ForVision2Seq$"), "llm"),
    (
        re.compile(r"(Bert|RobertaX?|MPNet|ModernBert|NomicBert|GTE|New|Qwen\d|Gemma\d?Text)"
                   r"(Model|ForMaskedLM|ForSequenceClassification)$|ForSequenceClassification$"),
        "embedding",
    ),
)  # fmt: skip
_EMBEDDERS = ("modules.json", "config_sentence_transformers.json")


class BadConfig(Exception):
    """A file of a model's folder cannot be used; the text says which, and why."""


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file. Raises `BadConfig` and `OSError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
    except FileNotFoundError:
        return {}
    if len(data) > MAX_CONFIG:
        raise BadConfig(f"{path.name} is larger than {MAX_CONFIG >> 20} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{path.name} is no JSON") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{path.name} is no JSON object")
    return found


def class_of(config: Mapping[str, Any]) -> str:
    """Return the class that a configuration names, such as `LlamaForCausalLM`."""
    named = config.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    return str(config.get("_class_name") or "")


def kind_of_class(name: str, names: frozenset[str]) -> str | None:
    """Return what a model of this class is for; `names` are the files beside its configuration."""
    if any(each in names for each in _EMBEDDERS):
        return "embedding"
    return next((kind for pattern, kind in _CLASSES if pattern.search(name)), None)


def context_of(config: Mapping[str, Any]) -> int | None:
    """Return the tokens of context that a configuration, or its text part, names."""
    text = config.get("text_config")
    for table in (text if isinstance(text, Mapping) else {}, config):
        for key in _CONTEXT:
            value = table.get(key)
            if type(value) is int and 0 < value < 1 << 40:
                return value
    return None


def sees(config: Mapping[str, Any]) -> bool:
    """Say whether a language model takes images."""
    return isinstance(config.get("vision_config"), Mapping)


def quantization_of(config: Mapping[str, Any], openvino: Mapping[str, Any]) -> str | None:
    """Return how the weights are stored, where a configuration says it: `INT4`, `GPTQ-4bit`."""
    own = openvino.get("dtype") or _inner(openvino, "quantization_config", "dtype")
    if isinstance(own, str):
        return own.upper()[:16]
    method = _inner(config, "quantization_config", "quant_method")
    if isinstance(method, str):
        bits = _inner(config, "quantization_config", "bits")
        return f"{method.upper()[:16]}{f'-{bits}bit' if type(bits) is int else ''}"
    return None


def dtype_of(config: Mapping[str, Any]) -> str | None:
    """Return the type of weights that a configuration names, as safetensors writes it."""
    named = str(config.get("torch_dtype") or config.get("dtype") or "").removeprefix("torch.")
    return {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(named)


def _inner(config: Mapping[str, Any], table: str, key: str) -> Any:
    inner = config.get(table)
    return inner.get(key) if isinstance(inner, Mapping) else None
