"""Settings into the fields of llama.cpp's parameter structs, checked before the library is."""

from __future__ import annotations

import ctypes
from typing import Any

from aiplayground.errors import InvalidSettings
from aiplayground.gguf import GgufFile

from .extras import Extras, Override, extras_of
from .settings import Settings

CACHE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
"""`enum ggml_type`."""

UNQUANTISED = frozenset({"f32", "f16", "bf16"})

BLOCK = 32
"""Numbers that a quantised type keeps together."""

_TAGS = {"int": 0, "float": 1, "bool": 2, "str": 3}  # enum llama_model_kv_override_type
_VALUES = {"int": "val_i64", "float": "val_f64", "bool": "val_bool", "str": "val_str"}


def check_settings(settings: Settings) -> Extras:
    """Return the extra options. Raises `InvalidSettings` for what can never work."""
    check_cache(settings)
    return extras_of(settings.extra_arguments)


def check_cache(settings: Settings) -> None:
    """Refuse types of the cache that can never work: `InvalidSettings`."""
    quantised = settings.cache_type_v not in UNQUANTISED
    if quantised and settings.flash_attention == "off":
        raise InvalidSettings(
            f"Setting 'cache_type_v': {settings.cache_type_v} needs flash attention. Set "
            "flash_attention to auto or on, or cache_type_v to f16."
        )


def check_model(settings: Settings, gguf: GgufFile, name: str) -> None:
    """Check the settings for one model. Raises `InvalidSettings` saying what to change."""
    options = settings.models.get(name)
    if options is not None and options.draft is not None:
        raise InvalidSettings(
            f"Setting 'models.{name}.draft': draft models need engine = 'llama-server'. Set that, "
            "or leave the draft model out."
        )
    check_heads(settings, gguf)


def check_heads(settings: Settings, gguf: GgufFile) -> None:
    """Refuse types of the cache that a model's heads do not fit: `InvalidSettings`."""
    if gguf.is_embedding:
        return  # its keys and values are not kept
    for setting, part in (("cache_type_k", "key"), ("cache_type_v", "value")):
        kind = getattr(settings, setting)
        size = head_size(gguf, part)
        if kind not in UNQUANTISED and size and size % BLOCK:
            raise InvalidSettings(
                f"Setting '{setting}': {kind} keeps {BLOCK} numbers together, and the attention "
                f"heads of {gguf.path.name} have {size}. Set it to f16 or bf16."
            )


def head_size(gguf: GgufFile, part: str) -> int | None:
    """Return the numbers that an attention head keeps of a token, or None if unknown."""
    told = gguf.hyperparameter(f"attention.{part}_length")
    width, heads = gguf.embedding_length, gguf.hyperparameter("attention.head_count")
    return told or (width // heads if width and heads else None)


def tune_cache(parameters: Any, settings: Settings) -> None:
    """Put the types of keys and values into `llama_context_params`."""
    parameters.type_k = CACHE_TYPES[settings.cache_type_k]
    parameters.type_v = CACHE_TYPES[settings.cache_type_v]


def tune_context(parameters: Any, settings: Settings) -> None:
    """Put the extra options into `llama_context_params`."""
    for name, value in extras_of(settings.extra_arguments).context.items():
        setattr(parameters, name, value)
    parameters.n_ubatch = min(parameters.n_ubatch, parameters.n_batch)


def tune_model(lib: Any, parameters: Any, settings: Settings) -> None:
    """Put the settings into `llama_model_params`, which keeps what it points to."""
    extras = extras_of(settings.extra_arguments)
    for name, value in extras.model.items():
        setattr(parameters, name, value)
    if extras.tensor_split:
        parameters.tensor_split = _shares(lib, extras.tensor_split)
    if extras.overrides:
        parameters.kv_overrides = _overrides(lib, extras.overrides)


def _shares(lib: Any, split: tuple[float, ...]) -> Any:
    most = int(lib.llama_max_devices())
    if len(split) > most:
        raise InvalidSettings(
            f"Setting 'extra_arguments': --tensor-split has {len(split)} parts, and llama.cpp "
            f"was built for at most {most} devices."
        )
    return (ctypes.c_float * most)(*split)


def _overrides(lib: Any, overrides: list[Override]) -> Any:
    """Return the array; an entry without a key ends it."""
    array = (lib.llama_model_kv_override * (len(overrides) + 1))()
    for entry, (key, kind, value) in zip(array, overrides, strict=False):
        entry.tag, entry.key = _TAGS[kind], key.encode()
        setattr(entry.value, _VALUES[kind], value.encode() if kind == "str" else value)
    return array
