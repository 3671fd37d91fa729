"""LoRA adapters: whether a file is one, and one for this model, before native code sees it.

An adapter holds, for some of the model's matrices, two small ones whose product is added to it:
W + scale * alpha / rank * B A. Source of the names and shapes: llama.cpp's
`src/llama-adapter.cpp` and `convert_lora_to_gguf.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aiplayground.errors import InvalidSettings
from aiplayground.gguf import GgufError, GgufFile, read_gguf

from .options import option_path
from .settings import Adapter

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]

EMBEDDING = "token_embd.weight"
"""The one matrix that is looked up, not multiplied with: its small ones lie the other way."""

OUTPUT = "output.weight"
"""The matrix that makes logits; without it the embeddings do that too."""

STORED = frozenset({"F32", "F16", "BF16", "Q8_0"})
"""Tensor types that llama.cpp can use wherever it has an adapter."""

_HALVES = (".lora_a", ".lora_b")


class LoraFile(NamedTuple):
    """A checked adapter, and how strongly it works."""

    path: Path
    scale: float


def check_adapters(
    adapters: Sequence[Adapter], name: str, model: GgufFile, parts: Sequence[Path]
) -> tuple[LoraFile, ...]:
    """Return the files of the adapters that the settings give the model of this name.

    `parts` are the model's files. Blocks on the disk. Raises `InvalidSettings` that names the
    setting of one that is missing, damaged or not for this model.
    """
    if not adapters:
        return ()
    shapes = {tensor.name: tensor.shape for part in parts for tensor in read_gguf(part).tensors}
    found = []
    for number, adapter in enumerate(adapters):
        setting = f"models.{name}.adapters[{number}].path"
        path = option_path(adapter.path, model.path)
        file = read_option(path, setting)
        if (why := unsuitable(file, model.architecture, shapes)) is not None:
            raise wrong_file(setting, path, why)
        found.append(LoraFile(path, adapter.scale))
    return tuple(found)


def read_option(path: Path, setting: str) -> GgufFile:
    """Read the header of a file that a setting names; raises `InvalidSettings`."""
    try:
        return read_gguf(path)
    except GgufError as error:
        raise InvalidSettings(
            f"Setting '{setting}': {error.message}",
            details={"setting": setting, **error.details},
        ) from error


def wrong_file(setting: str, path: Path, why: str) -> InvalidSettings:
    """Say what is wrong with a file that a setting names, in a sentence that follows its name."""
    details = {"setting": setting, "path": str(path)}
    return InvalidSettings(f"Setting '{setting}': {path.name} {why}", details=details)


def unsuitable(file: GgufFile, architecture: str | None, model: Shapes) -> str | None:
    """Say why a sound file cannot be an adapter of a model with these tensors, or None."""
    if not file.is_adapter or file.text("adapter.type") != "lora":
        return "is not a LoRA adapter. Name one that was converted with convert_lora_to_gguf.py."
    if file.architecture != architecture:
        return (
            f"was made for the architecture {file.architecture}, and this model is of "
            f"{architecture}. Use the adapter with the model that it was made for."
        )
    if file.types.get("adapter.lora.alpha", "float32") != "float32":
        return "has an alpha that is not a 32-bit number. Convert it again."
    if "adapter.alora.invocation_tokens" in file.metadata:
        return "is an activated LoRA (aLoRA), which is not supported. Use a plain one."
    return _unfitting(file, model)


def _unfitting(file: GgufFile, model: Shapes) -> str | None:
    halves: dict[str, dict[str, Shape]] = {}
    for tensor in file.tensors:
        base, suffix = tensor.name[:-7], tensor.name[-7:]
        if tensor.name.endswith("_norm.weight"):
            continue  # llama.cpp leaves them out
        if suffix not in _HALVES:
            return f"has the tensor {tensor.name!r}, which is no part of a LoRA. Convert it again."
        if tensor.type not in STORED:
            return f"stores {tensor.name!r} as {tensor.type}. Convert it to F16."
        halves.setdefault(base, {})[suffix] = tensor.shape
    if not halves:
        return "changes nothing: it has no tensors. Download or convert it again."
    return next(filter(None, (_misfit(*item, model) for item in halves.items())), None)


def _misfit(base: str, halves: Mapping[str, Shape], model: Shapes) -> str | None:
    if len(halves) < 2:
        return f"has only one half of {base!r}. Download or convert it again."
    shape = model.get(base)
    if base == EMBEDDING and OUTPUT not in model:
        # llama.cpp would multiply with what is to be looked up, and abort.
        return (
            f"changes {base!r}, which this model also writes its answers with: llama.cpp cannot do "
            "that. Use an adapter without it, or merge it into the model."
        )
    if shape is None or len(shape) < 2:
        return (
            f"changes {base!r}, which this model does not have. Use the adapter with the model "
            "that it was made for."
        )
    if not fits(base, shape, *(_full(halves[half]) for half in _HALVES)):
        return (
            f"was made for another model: its shapes for {base!r} do not fit {shape}. Use the "
            "adapter with the model that it was made for."
        )
    return None


def fits(base: str, shape: Shape, a: Shape, b: Shape) -> bool:
    """Say whether two small matrices go with one; `a` and `b` have four dimensions.

    Dimensions are in ggml's order: the first is the length of a row.
    """
    width, height, *rest = _full(shape)
    same_experts = list(a[2:]) == list(b[2:]) == rest
    if base == EMBEDDING:
        # Its rows are looked up in A, and B is kept the other way round.
        return same_experts and (a[1], b[1], a[0]) == (height, width, b[0])
    return same_experts and (a[0], b[1], a[1]) == (width, height, b[0])


def _full(shape: Shape) -> Shape:
    return (*shape, 1, 1, 1)[:4]
