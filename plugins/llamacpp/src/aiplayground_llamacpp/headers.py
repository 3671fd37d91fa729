"""Figures in a model's header at which llama.cpp ends the process rather than refuse it: pure.

The file is sound then, and what it says of the model is not. Source of the rules: `load_hparams`
in llama.cpp's `src/llama-model.cpp`, and what its graphs assert. Values of another type than it
expects llama.cpp refuses itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiplayground.gguf import GgufArray, GgufFile

MOST_LAYERS = 512  # LLAMA_MAX_LAYERS
MOST_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MOST_CONTEXT = 2**31 - 1
"""Tokens of context, which llama.cpp tells as a signed number of 32 bits."""

POOLINGS = (0, 1, 2, 3, 4, 2**32 - 1)
"""`enum llama_pooling_type`; the last stands for "not told"."""

SCALINGS = ("none", "linear", "yarn", "longrope")
"""Ways of scaling positions, by llama.cpp's names."""

OF_EXPERTS = frozenset({"bailingmoe2", "glm4moe", "grovemoe", "llada-moe", "smallthinker"})
"""Architectures that are nothing without experts, as llama.cpp asserts."""

WITH_SECTIONS = frozenset({"paddleocr", "qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"})
"""Architectures whose positions have rows and columns (M-RoPE)."""

_INNER = ("blk.", "token_embd.", "output")
"""Beginnings of the names of tensors that do not make an embedding wider."""

_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")


def impossible(file: GgufFile) -> str | None:
    """Say what in the header of a sound file cannot be, as a sentence after its name, or None."""
    for rule in _RULES:
        for what in rule(file):
            return f"is corrupt: {what}. Download it again, or convert it again."
    return None


def _sizes(file: GgufFile) -> Iterator[str]:
    layers = file.hyperparameter("block_count")
    if layers is not None and not 0 < layers <= MOST_LAYERS:
        yield f"it has {layers} layers, and 1 to {MOST_LAYERS} can be"
    context = file.hyperparameter("context_length")
    if context is not None and not 0 <= context <= MOST_CONTEXT:
        yield f"its context of {context} tokens cannot be"
    ahead = file.hyperparameter("nextn_predict_layers") or 0
    if layers is not None and ahead > layers:
        yield f"{ahead} of its {layers} layers guess ahead"


def _experts(file: GgufFile) -> Iterator[str]:
    if (file.architecture or "").startswith("hunyuan"):
        return  # here llama.cpp takes one expert for none
    count, uses = file.hyperparameter("expert_count") or 0, _numbers(file, "expert_used_count")
    if uses is None:
        return
    used = max(uses, default=0)
    groups = file.hyperparameter("expert_group_count") or 0
    taken = file.hyperparameter("expert_group_used_count") or 0
    if count > MOST_EXPERTS or used > count or (count and not used):
        yield f"it uses {used} of {count} experts"
    if not count and file.architecture in OF_EXPERTS:
        yield "it has no experts"
    if groups and groups >= count:
        yield f"its {count} experts are in {groups} groups"
    if groups > 1 and (count % groups or not 0 < taken < groups):
        yield f"it uses {taken} of {groups} groups of {count} experts"


def _kinds(file: GgufFile) -> Iterator[str]:
    pooling = file.hyperparameter("pooling_type")
    if pooling is not None and pooling not in POOLINGS:
        yield f"its kind of pooling, {pooling}, is unknown"
    key = f"{file.architecture}.rope.scaling.type"
    scaling = file.metadata.get(key)
    if file.types.get(key) == "string" and scaling not in SCALINGS:
        yield f"its scaling of positions, {str(scaling)[:40]!r}, is unknown"
    sections = _numbers(file, "rope.dimension_sections") or []
    if file.architecture in WITH_SECTIONS and not any(sections[:3]):
        yield "its positions have no sections"


def _figures(file: GgufFile) -> Iterator[str]:
    width, out = file.embedding_length, file.hyperparameter("embedding_length_out")
    last = [each for each in file.tensors if not each.name.startswith(_INNER)]
    if width and out and out > width and not any(out in each.shape[1:] for each in last):
        yield f"it makes embeddings of {out} numbers out of {width}"
    for name in _EPSILONS:
        value = file.metadata.get(f"{file.architecture}.attention.{name}", 0.0)
        if isinstance(value, float) and not value >= 0:
            yield f"its {name}, {value}, cannot be"


def _numbers(file: GgufFile, name: str) -> list[int] | None:
    """Return one number, or those of a list with one for each layer; None if it was not kept."""
    value = file.metadata.get(f"{file.architecture}.{name}")
    if isinstance(value, GgufArray):
        return None
    values = value if isinstance(value, tuple) else (value,)
    # llama.cpp reads a negative number as a very large one.
    return [each % 2**32 for each in values if isinstance(each, int)]


_RULES: tuple[Callable[[GgufFile], Iterator[str]], ...] = (
    _sizes,
    _experts,
    _kinds,
    _figures,
)
