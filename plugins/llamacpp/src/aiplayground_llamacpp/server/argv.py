"""From settings and a model to the command line of `llama-server`: pure.

Source of the options: `tools/server/README.md` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aiplayground.errors import InvalidSettings
from aiplayground_llamacpp.adapters import LoraFile
from aiplayground_llamacpp.backends import NO_DEVICE
from aiplayground_llamacpp.machine import LITTLE_MEMORY
from aiplayground_llamacpp.settings import Settings

MAX_UBATCH = 512

FULL_LOG = 5
"""The level of `--log-verbosity` at which `verbose` has everything told; 3 is the default."""

_LOAD_MODES = {
    (True, False): "mmap",
    (True, True): "mmap+mlock",
    (False, True): "mlock",
    (False, False): "none",
}


class Model(NamedTuple):
    """What the command line says of a model: sizes in tokens, `trained` 0 where it is unknown.

    `stretch` names the metadata key to set where the context is larger than what the model was
    trained on: llama-server would cut the context down to that. `projector` and `draft` are files
    that go with the model; `at_once` are the tokens of an image that it must see as a whole.
    """

    path: Path
    size: int
    slots: int
    threads: int
    stretch: str | None = None
    adapters: tuple[LoraFile, ...] = ()
    projector: Path | None = None
    at_once: int = 0
    draft: Path | None = None


def slots_for(wanted: int, context: int | None, free: int | None) -> int:
    """Return how many answers to compute at a time, at least 1.

    Each gets a context of its own, of `context` bytes: one that is shared fails all answers in it
    when it is full. They may take a quarter of the `free` bytes of memory; unknown sizes do not
    count.
    """
    if not context:
        return wanted
    room = max(LITTLE_MEMORY, (free or 0) // 4)
    return max(1, min(wanted, room // context))


def writer(program: str, model: Model, settings: Settings) -> list[str]:
    """Return the command line for a model that writes."""
    argv = _common(program, model, settings)
    batch = max(settings.batch_size, model.at_once)
    argv += ["--parallel", str(model.slots), "--ctx-size", str(model.size * model.slots)]
    argv += ["--no-kv-unified", "--cache-ram", str(settings.prompt_cache)]
    argv += ["--batch-size", str(batch)]
    argv += ["--ubatch-size", str(min(batch, max(MAX_UBATCH, model.at_once)))]
    argv += ["--cache-type-k", settings.cache_type_k, "--cache-type-v", settings.cache_type_v]
    if model.projector is not None:
        argv += ["--mmproj", str(model.projector)]
        if settings.gpu_layers == 0 or settings.devices == (NO_DEVICE,):
            argv += ["--no-mmproj-offload"]
    if model.draft is not None:
        argv += ["--spec-type", "draft-simple", "--model-draft", str(model.draft)]
    return [*argv, *settings.extra_arguments]


def embedder(program: str, model: Model, settings: Settings, *, pooling: str | None) -> list[str]:
    """Return the command line for embeddings or scores; `pooling` None takes the model's own.

    A text is computed in one piece, since pooling needs all of its tokens at once.
    """
    size = str(model.size)
    argv = _common(program, model, settings)
    argv += ["--embedding", "--parallel", "1", "--ctx-size", size]
    argv += ["--batch-size", size, "--ubatch-size", size, "--cache-ram", "0"]
    if pooling is not None:
        argv += ["--pooling", pooling]
    return [*argv, *settings.extra_arguments]


def _common(program: str, model: Model, settings: Settings) -> list[str]:
    argv = [program, "--model", str(model.path), "--host", "127.0.0.1", "--port", "0"]
    argv += ["--no-ui", "--no-slots", "--offline", "--fit", "off", "--log-colors", "off"]
    # The worker formats conversations itself: a template that this program cannot read is no reason
    # for it not to start.
    argv += ["--no-jinja", "--chat-template", "chatml"]
    argv += ["--threads", str(model.threads), "--flash-attn", settings.flash_attention]
    argv += ["--load-mode", _LOAD_MODES[settings.memory_map, settings.lock_memory]]
    if settings.gpu_layers >= 0:
        argv += ["--n-gpu-layers", str(settings.gpu_layers)]
    if settings.devices:
        argv += ["--device", ",".join(settings.devices)]
    if settings.check_tensors:
        argv += ["--check-tensors"]
    if settings.verbose:
        argv += ["--log-verbosity", str(FULL_LOG)]
    if model.stretch is not None:
        argv += ["--override-kv", f"{model.stretch}=int:{model.size}"]
    return argv + _adapters(model.adapters)


def _adapters(adapters: Sequence[LoraFile]) -> list[str]:
    argv: list[str] = []
    for adapter in adapters:
        path = str(adapter.path)
        if '"' in path or "," in path or (adapter.scale != 1 and ":" in path):
            raise InvalidSettings(
                f"llama-server cannot take the adapter {path}: its options divide at commas and "
                "colons. Move the file to a path without them."
            )
        argv += (
            ["--lora", path]
            if adapter.scale == 1
            else ["--lora-scaled", f"{path}:{adapter.scale:g}"]
        )
    return argv
