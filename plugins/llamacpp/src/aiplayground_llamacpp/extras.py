"""Options in the words of llama-server's command line, for the engine in this process: pure.

Source: `common/arg.cpp` of llama.cpp. Of its many words these have a counterpart in what a model
or a context is made with; the rest is a setting of ours, or the server's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from aiplayground.errors import InvalidSettings, suggest

Override: TypeAlias = tuple[str, Literal["int", "float", "bool", "str"], Any]
"""A metadata key, the type that it is to have, and its value."""

LONGEST = 127
"""Bytes of a key, or of a text, in an override."""


@dataclass(slots=True)
class Extras:
    """What the options ask for; `model` and `context` are fields of llama.cpp's own structs.

    `numa` is a strategy (`enum ggml_numa_strategy`), 0 for none.
    """

    model: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    tensor_split: tuple[float, ...] = ()
    overrides: list[Override] = field(default_factory=list)
    numa: int = 0


class _Option(NamedTuple):
    """A word; `read` turns its value into the field's, or is None for a word without a value."""

    where: Literal["model", "context"]
    name: str
    read: Callable[[str], Any] | None = None
    fixed: Any = None


def extras_of(words: Sequence[str]) -> Extras:
    """Read the options. Raises `InvalidSettings` naming the one that is wrong."""
    extras = Extras()
    rest = iter(words)
    for word in rest:
        if word in _SPECIAL:
            _SPECIAL[word](extras, _value(word, rest))
        elif word in _OPTIONS:
            option = _OPTIONS[word]
            value = option.fixed if option.read is None else _read(word, rest, option.read)
            getattr(extras, option.where)[option.name] = value
        else:
            raise _unknown(word)
    return extras


def _unknown(word: str) -> InvalidSettings:
    if (setting := _SETTINGS.get(word)) is not None:
        return _wrong(f"{word} is the setting '{setting}' here; set that")
    known = sorted({*_OPTIONS, *_SPECIAL})
    return _wrong(
        f"the engine in this process knows no {word!r}.{suggest(word, known)} It knows "
        f"{', '.join(known)}. All of llama-server's options need engine = 'llama-server'"
    )


def _wrong(what: str) -> InvalidSettings:
    return InvalidSettings(f"Setting 'extra_arguments': {what}.")


def _value(word: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise _wrong(f"{word} needs a value after it")
    return value


def _read(word: str, rest: Iterator[str], read: Callable[[str], Any]) -> Any:
    value = _value(word, rest)
    try:
        return read(value)
    except (ValueError, ZeroDivisionError, KeyError) as error:
        raise _wrong(f"{word} cannot be {value!r}") from error


def _number(value: str) -> float:
    number = float(value)
    if not abs(number) < float("inf"):
        raise ValueError(value)
    return number


def _scale(value: str) -> float:
    return 1 / _number(value)


def _count(value: str) -> int:
    number = int(value)
    if not 0 <= number < 2**31:
        raise ValueError(value)
    return number


def _batch(value: str) -> int:
    number = _count(value)
    if number < 1:
        raise ValueError(value)
    return number


def _threads(value: str) -> int:
    number = _batch(value)
    if number > 512:  # as the setting `threads`: each is a thread of the system
        raise ValueError(value)
    return number


def _gpu(value: str) -> int:
    number = int(value)
    if not -1 <= number < 256:
        raise ValueError(value)
    return number


def _tensor_split(extras: Extras, value: str) -> None:
    parts = value.replace("/", ",").split(",")
    try:
        extras.tensor_split = tuple(_number(part) for part in parts)
    except ValueError as error:
        raise _wrong(f"--tensor-split cannot be {value!r}: give parts, as in 3,1") from error


def _numa(extras: Extras, value: str) -> None:
    if value not in _NUMA:
        raise _wrong(f"--numa cannot be {value!r}: it takes {', '.join(_NUMA)}")
    extras.numa = _NUMA[value]


def _override(extras: Extras, value: str) -> None:
    for each in value.split(","):
        key, _, typed = each.partition("=")
        kind, _, text = typed.partition(":")
        read = _TYPES.get(kind)
        try:
            if read is None or not 0 < len(key.encode()) <= LONGEST:
                raise ValueError(each)
            extras.overrides.append((key, kind, read(text)))  # type: ignore[arg-type]  # of _TYPES
        except (ValueError, KeyError) as error:
            raise _wrong(
                f"--override-kv cannot be {each!r}: it takes KEY=TYPE:VALUE, where TYPE is "
                f"{', '.join(_TYPES)}"
            ) from error


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _short(text: str) -> str:
    if len(text.encode()) > LONGEST:
        raise ValueError(text)
    return text


_NUMA = {"distribute": 1, "isolate": 2, "numactl": 3}
_TYPES: dict[str, Callable[[str], Any]] = {
    "int": _integer,
    "float": _number,
    "bool": {"true": True, "false": False}.__getitem__,
    "str": _short,
}
_SPECIAL: dict[str, Callable[[Extras, str], None]] = {
    "-ts": _tensor_split,
    "--tensor-split": _tensor_split,
    "--numa": _numa,
    "--override-kv": _override,
}
_ROPE = _Option("context", "rope_scaling_type", {"none": 0, "linear": 1, "yarn": 2}.__getitem__)
_SPLIT = _Option("model", "split_mode", {"none": 0, "layer": 1, "row": 2, "tensor": 3}.__getitem__)
_MAIN = _Option("model", "main_gpu", _gpu)
_UBATCH = _Option("context", "n_ubatch", _batch)
_THREADS_BATCH = _Option("context", "n_threads_batch", _threads)
_KV_HERE = _Option("context", "offload_kqv", fixed=True)
_KV_AWAY = _Option("context", "offload_kqv", fixed=False)
_PLAIN = _Option("model", "use_extra_bufts", fixed=False)
_OPTIONS = {
    "--rope-scaling": _ROPE,
    "--rope-scale": _Option("context", "rope_freq_scale", _scale),
    "--rope-freq-base": _Option("context", "rope_freq_base", _number),
    "--rope-freq-scale": _Option("context", "rope_freq_scale", _number),
    "--yarn-orig-ctx": _Option("context", "yarn_orig_ctx", _count),
    "--yarn-ext-factor": _Option("context", "yarn_ext_factor", _number),
    "--yarn-attn-factor": _Option("context", "yarn_attn_factor", _number),
    "--yarn-beta-slow": _Option("context", "yarn_beta_slow", _number),
    "--yarn-beta-fast": _Option("context", "yarn_beta_fast", _number),
    "-ub": _UBATCH,
    "--ubatch-size": _UBATCH,
    "-tb": _THREADS_BATCH,
    "--threads-batch": _THREADS_BATCH,
    "-kvo": _KV_HERE,
    "--kv-offload": _KV_HERE,
    "-nkvo": _KV_AWAY,
    "--no-kv-offload": _KV_AWAY,
    "--op-offload": _Option("context", "op_offload", fixed=True),
    "--no-op-offload": _Option("context", "op_offload", fixed=False),
    "--swa-full": _Option("context", "swa_full", fixed=True),
    "-sm": _SPLIT,
    "--split-mode": _SPLIT,
    "-mg": _MAIN,
    "--main-gpu": _MAIN,
    "--repack": _Option("model", "use_extra_bufts", fixed=True),
    "-nr": _PLAIN,
    "--no-repack": _PLAIN,
    "--no-host": _Option("model", "no_host", fixed=True),
}
# Words that are settings of ours, so that there is one place for each.
_SETTINGS = {
    "-b": "batch_size",
    "--batch-size": "batch_size",
    "-c": "context_size",
    "--ctx-size": "context_size",
    "-np": "slots",
    "--parallel": "slots",
    "-t": "threads",
    "--threads": "threads",
    "-ngl": "gpu_layers",
    "--gpu-layers": "gpu_layers",
    "--n-gpu-layers": "gpu_layers",
    "-fa": "flash_attention",
    "--flash-attn": "flash_attention",
    "-ctk": "cache_type_k",
    "--cache-type-k": "cache_type_k",
    "-ctv": "cache_type_v",
    "--cache-type-v": "cache_type_v",
    "-dev": "devices",
    "--device": "devices",
    "--mlock": "lock_memory",
    "--no-mmap": "memory_map",
    "--check-tensors": "check_tensors",
    "--cache-ram": "prompt_cache",
    "-cram": "prompt_cache",
    "--chat-template": "chat_template",
    "--chat-template-file": "chat_template",
    "-md": "models.<name>.draft",
    "--model-draft": "models.<name>.draft",
    "--lora": "models.<name>.adapters",
    "--mmproj": "models.<name>.projector",
}
