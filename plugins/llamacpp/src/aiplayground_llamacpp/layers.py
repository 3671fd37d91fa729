"""What each layer of a model keeps of the texts that it has read: from metadata alone, pure.

Source: `src/llama-hparams.cpp`, `src/llama-kv-cache.cpp` and `src/llama-kv-cache-iswa.cpp` of
llama.cpp, and the sizes of its quantised types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiplayground.gguf import GgufFile, TensorInfo

BITS = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5,
    "iq4_nl": 4.5,
}  # fmt: skip  # with the scale that each block of a quantised type has

_PATTERNS: Mapping[str, tuple[int, bool]] = {
    "gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False), "gpt-oss": (2, False),
    "cohere2": (4, False), "cohere2moe": (4, True), "llama4": (4, False), "olmo2": (4, False),
    "exaone4": (4, False), "afmoe": (4, False), "smallthinker": (4, True), "plamo3": (8, False),
    "mellum": (4, False),
}  # fmt: skip
"""Of how many layers one has no window where the file does not say, and whether that is the first.
Architectures that are not here keep everything unless the file says otherwise."""

_STATE = ("ssm_", "shortconv.", "time_mix_")
_KEYS = ("attn_k.", "attn_k_b.", "attn_kv_a_mqa.", "attn_kv_b.")


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer keeps: numbers of keys and values for each token, of a state for each sequence.

    `window`: it looks at so many tokens only; 0 at all of them.
    """

    keys: int = 0
    values: int = 0
    state: int = 0
    window: int = 0

    def token(self, types: tuple[str, str]) -> float:
        """Return the bytes that a token takes, with keys and values kept as these types."""
        return (self.keys * BITS[types[0]] + self.values * BITS[types[1]]) / 8


def layers_of(gguf: GgufFile, tensors: Sequence[TensorInfo] | None = None) -> list[Layer] | None:
    """Return the layers; None where the metadata does not say enough.

    `tensors` are those of all parts of a split model; those of the file itself if not given.
    """
    count = gguf.hyperparameter("block_count")
    if not count or count > 1024:
        return None
    kinds = _kinds(gguf.tensors if tensors is None else tensors)
    grouped = f"{gguf.architecture}.attention.head_count_kv" in gguf.metadata
    heads = _for_each(gguf, f"attention.head_count{'_kv' if grouped else ''}", count)
    state = _state(gguf)
    if heads is None and not state:
        return None
    windows = _windows(gguf, count)
    own = count - (gguf.hyperparameter("attention.shared_kv_layers") or 0)
    made = []
    for number in range(count):
        keeps, recurs = kinds.get(number, (not state, bool(state)))
        layer = Layer(state=state if recurs else 0, window=windows[number])
        if keeps and heads is not None and number < own:
            keys, values = _widths(gguf, windowed=windows[number] > 0)
            if keys is None or values is None:
                return None
            layer = Layer(keys * heads[number], values * heads[number], layer.state, layer.window)
        made.append(layer)
    return made


def is_uniform(layers: Iterable[Layer]) -> bool:
    """Whether all layers keep the same of each token, for as long as there is room."""
    found = set(layers)
    return len(found) == 1 and not any(each.state or each.window for each in found)


def _kinds(tensors: Sequence[TensorInfo]) -> dict[int, tuple[bool, bool]]:
    """Say of each layer, by its tensors, whether it keeps keys, and whether it has a state."""
    found: dict[int, set[str]] = {}
    for tensor in tensors:
        block, _, rest = tensor.name.removeprefix("blk.").partition(".")
        if tensor.name.startswith("blk.") and block.isdecimal():
            found.setdefault(int(block), set()).add(rest)
    return {number: _kind(names) for number, names in found.items()}


def _kind(names: set[str]) -> tuple[bool, bool]:
    recurs = any(name.startswith(_STATE) for name in names)
    fused = any(name.startswith("attn_qkv.") for name in names)
    return any(name.startswith(_KEYS) for name in names) or (fused and not recurs), recurs


def _for_each(gguf: GgufFile, name: str, count: int) -> list[int] | None:
    """Return an integer for each layer, which files give once or as a list."""
    value = gguf.metadata.get(f"{gguf.architecture}.{name}")
    if isinstance(value, int) and not isinstance(value, bool):
        return [value] * count
    if isinstance(value, tuple) and len(value) >= count:
        return [int(each) for each in value[:count] if isinstance(each, int)]
    return None


def _widths(gguf: GgufFile, *, windowed: bool) -> tuple[int | None, int | None]:
    """Return the numbers that a head keeps of a token as its key and as its value."""
    width, heads = gguf.embedding_length, _for_each(gguf, "attention.head_count", 1)
    usual = width // heads[0] if width and heads and heads[0] else None
    keys = gguf.hyperparameter("attention.key_length") or usual
    values = gguf.hyperparameter("attention.value_length") or usual
    if windowed:
        keys = gguf.hyperparameter("attention.key_length_swa") or keys
        values = gguf.hyperparameter("attention.value_length_swa") or values
    if gguf.hyperparameter("attention.key_length_mla"):
        return keys, 0  # both come from one compressed vector, which is kept as the key
    return keys, values


def _windows(gguf: GgufFile, count: int) -> list[int]:
    window = gguf.hyperparameter("attention.sliding_window") or 0
    told = gguf.metadata.get(f"{gguf.architecture}.attention.sliding_window_pattern")
    if not window:
        return [0] * count
    if isinstance(told, tuple) and len(told) >= count:
        return [window if each else 0 for each in told[:count]]
    period, first = _PATTERNS.get(gguf.architecture or "", (1, False))
    if isinstance(told, int) and gguf.architecture in _PATTERNS:
        period = int(told)
    if period == 0:
        return [window] * count
    full = 0 if first else period - 1
    return [0 if number % period == full else window for number in range(count)]


def _state(gguf: GgufFile) -> int:
    """Return the numbers of a recurrent layer's state; 0 for a model without any."""
    value = gguf.hyperparameter
    width = gguf.embedding_length or 0
    if head := value("wkv.head_size"):
        return width * (value("token_shift_count") or 2) + width * head
    if reach := value("shortconv.l_cache"):
        return width * (reach - 1)
    inner, states = value("ssm.inner_size") or 0, value("ssm.state_size") or 0
    groups, kernel = value("ssm.group_count") or 0, value("ssm.conv_kernel") or 0
    return max(0, kernel - 1) * (inner + 2 * groups * states) + inner * states
