"""What one checked GGUF file says about itself.

Keys and their meaning: "Standardized key-value pairs" in ggml's `docs/gguf.md`; `split.*` as
llama.cpp's gguf-split writes them, `clip.*` as its converter does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ._types import (
    EMBEDDING_ARCHITECTURES,
    FILE_TYPE_GUESSED,
    FILE_TYPES,
    GgufValue,
    TensorInfo,
)

POOLING_NONE, POOLING_RANK = 0, 4  # enum llama_pooling_type
_HEADS = ("cls.weight", "cls.output.weight")

# Kind of projector: its last tensor, and the dimension of that which is the width of embeddings.
_LAST_TENSORS = {
    "mlp": ("mm.2.weight", 1),
    "ldp": ("mm.model.mb_block.1.block.2.1.bias", 0),
    "ldpv2": ("mm.model.peg.0.bias", 0),
    "gemma3": ("mm.input_projection.weight", 0),
}
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])(I?Q\d(?:_[A-Z0-9]+)+|B?F16|F32|TQ\d_0|MXFP4(?:_MOE)?|NVFP4)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class GgufFile:
    """The header of one GGUF file whose tensors were found to lie within it.

    `size` is the file's in bytes; `data_offset` is where tensor data starts, in bytes from the
    start of the file. `types` names the type of each metadata value as the specification does
    ("float32", "array[int32]"): engines that ask for another one abort. `positions` says where each
    value lies, in bytes from the start of the file.
    """

    path: Path
    size: int
    version: int
    alignment: int
    data_offset: int
    metadata: Mapping[str, GgufValue]
    tensors: tuple[TensorInfo, ...]
    types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def text(self, key: str) -> str | None:
        """Return a metadata text that is there, is not empty and was short enough to keep."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None

    def integer(self, key: str) -> int | None:
        """Return a metadata integer, or None if it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def hyperparameter(self, name: str) -> int | None:
        """Return an integer under the architecture's own prefix, such as `llama.block_count`."""
        return self.integer(f"{self.architecture}.{name}")

    @property
    def architecture(self) -> str | None:
        """`general.architecture`, such as "llama" or "qwen3"."""
        return self.text("general.architecture")

    @property
    def name(self) -> str | None:
        """The model's name for people."""
        return self.text("general.name")

    @property
    def license(self) -> str | None:
        """An SPDX expression, as the file claims it."""
        return self.text("general.license")

    @property
    def parameters(self) -> int:
        """Number of weights in this file; one part of a split model holds only its own."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def size_label(self) -> str | None:
        """The size class, such as "7B" or "8x7B"; counted if the file does not say."""
        return self.text("general.size_label") or format_parameters(self.parameters)

    @property
    def quantization(self) -> str | None:
        """How most weights are stored, such as "Q4_K_M".

        What the file says, else what its tensors say, else (the first part of some split models has
        none) what its name says.
        """
        file_type = self.integer("general.file_type")
        declared = None if file_type is None else FILE_TYPES.get(file_type & ~FILE_TYPE_GUESSED)
        return declared or self.dominant_type or quantization_in(self.path.stem)

    @property
    def dominant_type(self) -> str | None:
        """The tensor type that stores most of the weights."""
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.type] += tensor.elements
        return weights.most_common(1)[0][0] if weights else None

    @property
    def context_length(self) -> int | None:
        """Tokens of context that the model was trained on."""
        return self.hyperparameter("context_length")

    @property
    def embedding_length(self) -> int | None:
        """Width of the model's embeddings, in numbers."""
        return self.hyperparameter("embedding_length")

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that turns messages into a prompt; untrusted."""
        return self.text("tokenizer.chat_template")

    @property
    def is_projector(self) -> bool:
        """Whether this file lets another model see or hear, and is no model by itself."""
        return self.text("general.type") == "mmproj" or self.architecture == "clip"

    @property
    def has_vision(self) -> bool:
        """Whether this projector has an image encoder; only the first ones say nothing at all."""
        hears = self.metadata.get("clip.has_audio_encoder", False)
        sees = self.metadata.get("clip.has_vision_encoder", not hears)
        return self.is_projector and sees is True

    @property
    def projection_length(self) -> int | None:
        """Width of the embeddings that this projector makes, in numbers, where a tensor says it.

        The key of that name is another width for the first kinds of projectors, and 0 for some.
        """
        tensor, dimension = _LAST_TENSORS.get(self.text("clip.projector_type") or "", ("", 0))
        for each in self.tensors:
            if each.name == tensor and len(each.shape) > dimension:
                return each.shape[dimension]
        return None

    @property
    def is_adapter(self) -> bool:
        """Whether this file is a LoRA adapter, to be applied to a base model."""
        return self.text("general.type") == "adapter"

    @property
    def is_embedding(self) -> bool:
        """Whether the model answers with embeddings rather than with text."""
        if self.architecture in EMBEDDING_ARCHITECTURES:
            return True
        return self.hyperparameter("pooling_type") not in (None, POOLING_NONE)

    @property
    def is_reranker(self) -> bool:
        """Whether the model says how well a document answers a query.

        Older files do not say so, but have the tensors of a classifier.
        """
        pooling = self.hyperparameter("pooling_type")
        if pooling is not None:
            return pooling == POOLING_RANK
        return self.is_embedding and any(tensor.name in _HEADS for tensor in self.tensors)

    @property
    def split_number(self) -> int:
        """This file's place in a split model, counted from 0."""
        return self.integer("split.no") or 0

    @property
    def split_count(self) -> int:
        """How many files the model is split into; 1 if it is whole."""
        return self.integer("split.count") or 1

    @property
    def split_tensors(self) -> int | None:
        """Number of tensors in all parts of a split model, or None if the file does not say."""
        return self.integer("split.tensors.count")


def format_parameters(count: int) -> str | None:
    """Write a number of weights as people do: 7241732096 as "7.2B"; None for zero."""
    for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= scale:
            return f"{count / scale:.1f}".removesuffix(".0") + letter
    return str(count) if count else None


def quantization_in(name: str) -> str | None:
    """Find the last thing in a file's name that looks like a quantization, such as "Q4_K_M"."""
    found = _QUANTIZATION.findall(name)
    return str(found[-1]).upper() if found else None
