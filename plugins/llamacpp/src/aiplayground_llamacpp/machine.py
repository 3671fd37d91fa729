"""What this computer has to compute with, and how the context divides what memory it has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aiplayground.gguf import GgufFile

from .layers import is_uniform, layers_of

if TYPE_CHECKING:
    from .settings import Settings

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


SMALL_MODEL = 32 * 2**20
"""Bytes of a model that one thread computes fastest: several spend their time waiting for each
other, and most of it while other programs are busy (measured: 4,300 tokens/s by one thread, 600 by
two)."""


LITTLE_MEMORY = 256 * 2**20
"""Bytes of keys and values that every machine which runs language models has to spare."""


DEFAULT_CONTEXT = 4096
"""Tokens of context unless the settings say otherwise: models offer more than memory holds."""

MIN_CONTEXT = 32

PADDING = 256
"""llama.cpp makes memory for a multiple of so many tokens."""

MOST_TOKENS = 2048
"""Tokens of a text to embed unless the settings say otherwise: the memory needed grows with their
square."""


def default_threads(model_size: int) -> int:
    """Return how many threads to compute a model of so many bytes with, at least 1.

    One for each physical core that this process may use: a second one on a core computes nothing
    more, and one beyond a container's quota waits.
    """
    if model_size < SMALL_MODEL:
        return 1
    allowed = _allowed_cpus()
    siblings = (_read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") for cpu in allowed)
    return limit_threads(siblings, len(allowed), _read(_CGROUP / "cpu.max"))


def limit_threads(siblings: Iterable[str | None], allowed: int, quota: str | None) -> int:
    """Count cores from the lists of CPUs that share one, and apply a cgroup's `cpu.max`."""
    known = {text.strip() for text in siblings if text}
    count = len(known) or allowed
    period, _, length = (quota or "max").partition(" ")
    if period.isdecimal() and length.strip().isdecimal():
        count = min(count, round(int(period) / int(length)))
    return max(1, count)


def context_size(wanted: int, trained: int) -> int:
    """Return the tokens of context to make; `wanted` is the setting, 0 for a sensible size."""
    size = wanted or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
    return max(size, MIN_CONTEXT)


def text_size(wanted: int, trained: int) -> int:
    """Return the most tokens of a text to embed; `wanted` is the setting, 0 for a sensible size.

    A model cannot read beyond what it was `trained` on: 0 where that is unknown.
    """
    return min(wanted or MOST_TOKENS, trained or MOST_TOKENS)


def scales_by_length(gguf: GgufFile) -> bool:
    """Say whether the size of the context changes what the model computes.

    llama.cpp chooses how positions are scaled by that size, which must then stay what was asked.
    """
    kind = gguf.metadata.get(f"{gguf.architecture}.rope.scaling.type")
    original = gguf.hyperparameter("rope.scaling.original_context_length")
    return kind not in (None, "none", "linear") or original is not None


def cache_cells(size: int, slots: int, token: int | None) -> int:
    """Return for how many tokens to have memory, when each of `slots` may use up to `size`.

    `token` is the bytes that one takes. All slots can be full where that takes little memory;
    else they share what a single one may use, or what the little memory holds if that is more.
    """
    if token is None:
        return size
    return min(size * slots, max(size, LITTLE_MEMORY // max(token, 1)))


def context_cells(size: int, settings: Settings, token: int | None) -> int:
    """Return for how many tokens to have memory in all, as the settings divide it."""
    if settings.kv_unified:
        return cache_cells(size, settings.slots, token)
    return -(-size // PADDING) * PADDING * settings.slots


def cache_bytes(
    gguf: GgufFile, context: int, types: tuple[str, str] = ("f16", "f16")
) -> int | None:
    """Return the bytes that keys and values of a context take, or None if unknown.

    `types` are those of keys and of values.

    None also for models whose layers differ or keep less than all: where this refuses a context,
    it must never refuse what would have fitted. `estimate` says what those take.
    """
    layers = layers_of(gguf, ())
    if layers is None or not is_uniform(layers):
        return None
    return int(len(layers) * context * layers[0].token(types))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not Linux, or not this kind of cgroup
        return None
