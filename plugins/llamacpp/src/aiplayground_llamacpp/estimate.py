"""What a model will take in memory, from the headers of its files and the settings: pure.

Weights, keys and values are counted as llama.cpp counts them. What a step works in is a rule of
thumb, calibrated on llama.cpp's own figures: `docs/memory.md` has it and its error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiplayground.gguf import GgufFile, TensorInfo
from aiplayground.specs import Device, MemoryEstimate, Saving

from .layers import Layer, is_uniform, layers_of
from .machine import MOST_TOKENS, PADDING, context_cells, context_size, scales_by_length
from .server.argv import slots_for
from .settings import Settings

WORKER = 80 * 2**20
"""Bytes that a worker has to itself without any model, and some reserve for what each request
needs: a rule of thumb."""

MAX_UBATCH = 512
FLOAT, HALF = 4, 2

IMAGE_WORK = 4
"""A projector works in one part in so many of its weights, or in `LEAST_IMAGE_WORK`."""
LEAST_IMAGE_WORK = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The headers of a model's files: all its parts, and the bytes of what goes with it."""

    parts: tuple[GgufFile, ...]
    adapters: int = 0
    projector: int = 0
    draft: GgufFile | None = None

    @property
    def first(self) -> GgufFile:
        """The part with the metadata."""
        return self.parts[0]

    @property
    def tensors(self) -> list[TensorInfo]:
        """The tensors of all parts."""
        return [tensor for part in self.parts for tensor in part.tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the engine will lay out a context: `streams` of `cells` tokens each.

    `sequences` is how many states a recurrent model keeps, `whole_windows` says that layers with a
    window keep as much as the others, `ubatch` are the tokens of a step.
    """

    cells: int
    sequences: int
    ubatch: int
    streams: int = 1
    whole_windows: bool = True
    flash: bool = True
    types: tuple[str, str] = ("f16", "f16")
    keeps: bool = True


def estimate(files: Files, settings: Settings, device: Device | None) -> MemoryEstimate | None:
    """Estimate a model with the settings that hold for it; None if its metadata says too little.

    `device` is the one with memory of its own that takes the layers, None for main memory.
    """
    layers = layers_of(files.first, files.tensors)
    if layers is None:
        return None
    plan = plan_of(files.first, layers, settings)
    made = _sizes(files, layers, plan, settings)
    made = replace(made, savings=_savings(files, layers, settings, made))
    return made if device is None else _placed(made, files, layers, plan, settings, device)


def plan_of(gguf: GgufFile, layers: Sequence[Layer], settings: Settings) -> Plan:
    """Return how the engine lays out a context for this model."""
    types = (settings.cache_type_k, settings.cache_type_v)
    flash = settings.flash_attention != "off"
    if gguf.is_embedding:
        trained = gguf.context_length or MOST_TOKENS
        size = min(settings.context_size or MOST_TOKENS, trained)
        return Plan(
            cells=size, sequences=1, ubatch=size, flash=flash, keeps=not _reads_both_ways(gguf)
        )
    size = context_size(settings.context_size, gguf.context_length or 0)
    ubatch = min(settings.batch_size, MAX_UBATCH)
    if settings.engine == "llama-server":
        token = _token(layers, types)
        slots = slots_for(settings.slots, None if token is None else int(token * size), None)
        return Plan(
            cells=size, sequences=slots, ubatch=ubatch, streams=slots, whole_windows=False,
            flash=flash, types=types,
        )  # fmt: skip
    token = None if scales_by_length(gguf) else _token(layers, types)
    cells = context_cells(size, settings, None if token is None else int(token))
    streams = 1 if settings.kv_unified else settings.slots
    return Plan(
        cells=cells // streams, sequences=settings.slots, ubatch=ubatch, streams=streams,
        flash=flash, types=types,
    )  # fmt: skip


def cache_size(layers: Sequence[Layer], plan: Plan) -> int:
    """Return the bytes of keys, values and states."""
    return sum(_layer_cache(layer, plan) for layer in layers) if plan.keeps else 0


def compute_size(gguf: GgufFile, plan: Plan) -> int:
    """Return the bytes that a step works in: a rule of thumb, above what was measured.

    Source of the form: what is alive at once in a layer's graph, which is the feed-forward part
    (three times its width) or, without flash attention, every token's weight for every other.
    """
    width = gguf.embedding_length or 0
    heads = _first(gguf, "attention.head_count")
    attention = heads * (gguf.hyperparameter("attention.key_length") or 0)
    wide = max(width, attention)
    forward = 3 * _feed(gguf) + 4 * wide
    cells = _padded(plan.cells) if plan.keeps else plan.cells
    each = forward if plan.flash else max(forward, heads * cells + 7 * wide)
    masks = cells * (HALF if plan.flash else FLOAT) * (2 if _has_window(gguf) else 1)
    logits = plan.sequences * _vocabulary(gguf) * FLOAT * 2
    return plan.ubatch * (each * FLOAT + masks) + logits


def _sizes(files: Files, layers: Sequence[Layer], plan: Plan, settings: Settings) -> MemoryEstimate:
    weights = sum(part.size - part.data_offset for part in files.parts) + files.adapters
    draft = 0
    if files.draft is not None and (own := layers_of(files.draft)) is not None:
        draft = files.draft.size + cache_size(own, plan) + compute_size(files.draft, plan)
    work = max(LEAST_IMAGE_WORK, files.projector // IMAGE_WORK) if files.projector else 0
    notes = []
    if settings.prompt_cache and plan.keeps:
        notes.append(
            f"Up to {settings.prompt_cache} MiB more for conversations that go on later "
            "(prompt_cache); they are given up when another model needs the memory."
        )
    return MemoryEstimate(
        weights=weights,
        cache=cache_size(layers, plan),
        compute=compute_size(files.first, plan),
        projector=files.projector + work,
        other=WORKER + draft,
        notes=tuple(notes),
    )


def _savings(
    files: Files, layers: Sequence[Layer], settings: Settings, now: MemoryEstimate
) -> tuple[Saving, ...]:
    """Return what the settings could be to need less, each with what that alone saves."""
    changes: list[tuple[str, Settings]] = []
    gguf = files.first
    size = context_size(settings.context_size, gguf.context_length or 0)
    if size > 1024 and not gguf.is_embedding:
        half = size // 2
        changes.append((f"Set context_size to {half}", _with(settings, context_size=half)))
    if settings.cache_type_k == settings.cache_type_v == "f16" and not gguf.is_embedding:
        small = _with(settings, cache_type_k="q8_0", cache_type_v="q8_0")
        if settings.flash_attention != "off":
            changes.append(("Set cache_type_k and cache_type_v to q8_0", small))
    if settings.slots > 1:
        changes.append(("Set slots to 1", _with(settings, slots=1)))
    if settings.batch_size > 128 and not gguf.is_embedding:
        changes.append(("Set batch_size to 128", _with(settings, batch_size=128)))
    found = []
    for change, other in changes:
        less = _sizes(files, layers, plan_of(gguf, layers, other), other)
        if now.total - less.total > 0:
            found.append(Saving(change, now.total - less.total))
    return tuple(found)


def _with(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def _placed(
    made: MemoryEstimate,
    files: Files,
    layers: Sequence[Layer],
    plan: Plan,
    settings: Settings,
    device: Device,
) -> MemoryEstimate:
    """Divide it between a device and main memory by the layers that are put there."""
    count = len(layers)
    wanted = settings.gpu_layers if settings.gpu_layers >= 0 else count + 1
    first = max(0, count + 1 - wanted)  # the last layers go first, and the output before them
    on = sum(
        tensor.size or 0 for tensor in files.tensors if _is_there(tensor.name, first, count, wanted)
    )
    cache = sum(_layer_cache(each, plan) for each in layers[first:]) if plan.keeps else 0
    if wanted == 0:
        return made
    taken = min(made.total - WORKER, on + cache + made.compute + made.projector)
    return replace(made, device=device, on_device=taken)


def _is_there(name: str, first: int, count: int, wanted: int) -> bool:
    block, _, _ = name.removeprefix("blk.").partition(".")
    if name.startswith("blk.") and block.isdecimal():
        return int(block) >= first
    # The embeddings stay in main memory; where they are the output too, the device has a copy.
    return wanted > count and not name.startswith("token_embd_norm")


def _layer_cache(layer: Layer, plan: Plan) -> int:
    cells = _padded(plan.cells)
    if layer.window and not plan.whole_windows:
        cells = min(cells, _padded(layer.window + plan.ubatch))
    kept = layer.token(plan.types) * cells * plan.streams
    return int(kept) + layer.state * FLOAT * plan.sequences


def _padded(cells: int) -> int:
    return -(-cells // PADDING) * PADDING


def _token(layers: Sequence[Layer], types: tuple[str, str]) -> float | None:
    return len(layers) * layers[0].token(types) if is_uniform(layers) else None


def _reads_both_ways(gguf: GgufFile) -> bool:
    """Whether it is an encoder, which keeps nothing of what it has read."""
    return gguf.metadata.get(f"{gguf.architecture}.attention.causal") is False or (
        gguf.architecture or ""
    ).endswith(("bert", "t5encoder"))


def _has_window(gguf: GgufFile) -> bool:
    return bool(gguf.hyperparameter("attention.sliding_window"))


def _first(gguf: GgufFile, name: str) -> int:
    value = gguf.metadata.get(f"{gguf.architecture}.{name}")
    if isinstance(value, tuple):
        return max((each for each in value if isinstance(each, int)), default=0)
    return value if isinstance(value, int) else 0


def _feed(gguf: GgufFile) -> int:
    """Return the width of the feed-forward part: of all experts together that a token uses."""
    experts = _first(gguf, "expert_used_count") * (
        _first(gguf, "expert_feed_forward_length") or _first(gguf, "feed_forward_length")
    )
    shared = _first(gguf, "expert_shared_feed_forward_length")
    inner = _first(gguf, "ssm.inner_size")
    return max(_first(gguf, "feed_forward_length"), experts + shared, inner)


def _vocabulary(gguf: GgufFile) -> int:
    shapes: Mapping[str, tuple[int, ...]] = {each.name: each.shape for each in gguf.tensors}
    shape = shapes.get("token_embd.weight", ())
    return shape[1] if len(shape) > 1 else 0
