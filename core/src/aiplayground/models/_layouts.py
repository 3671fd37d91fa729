"""Folders that are one model: which, by the names of the files in them.

Sources: `save_pretrained` of transformers, peft and diffusers; Optimum Intel's export of OpenVINO
IR.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ._types import Format

OPENVINO_MODELS = (
    "openvino_model.xml",
    "openvino_language_model.xml",
    "openvino_encoder_model.xml",
)
"""The graph that a folder of OpenVINO IR has: of a text model, one that sees, one that hears."""

MODEL_INDEX, CONFIG, ADAPTER_CONFIG = "model_index.json", "config.json", "adapter_config.json"

_WEIGHTS = re.compile(
    r"((pytorch_|diffusion_pytorch_|adapter_)?model(\.fp16|\.bf16)?(-\d{5}-of-\d{5})?"
    r"\.(safetensors|bin))|consolidated(\.\d{2})?\.safetensors"
)
_BESIDE = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
_NEVER = ("training_args.bin", "optimizer.bin", "scheduler.bin")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a folder is one model; `nested` says whether its parts lie in folders of their own."""

    format: Format
    nested: bool = False

    def owns(self, name: str) -> bool:
        """Say whether a file of this name is a part of the model."""
        if name[name.rfind(".") :] in _BESIDE:
            return True
        if self.format is Format.OPENVINO:
            return name.endswith((".xml", ".bin")) and name not in _NEVER
        return is_weights(name)


def is_weights(name: str) -> bool:
    """Say whether transformers, peft or diffusers call the weights of a model like this."""
    return _WEIGHTS.fullmatch(name) is not None


def layout_of(names: Collection[str]) -> Layout | None:
    """Return what a folder with these names in it is; None if it is no model by itself."""
    if MODEL_INDEX in names:
        return Layout(Format.DIFFUSERS, nested=True)
    if any(name in names for name in OPENVINO_MODELS):
        return Layout(Format.OPENVINO)
    if (CONFIG in names or ADAPTER_CONFIG in names) and any(map(is_weights, names)):
        return Layout(Format.TRANSFORMERS)
    return None
