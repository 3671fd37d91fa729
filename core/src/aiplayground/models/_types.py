"""The plain values that a listing of local models consists of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelType(StrEnum):
    """What a model is for, as `ModelInfo.type` of the API reference has it."""

    LLM = "llm"
    EMBEDDING = "embedding"
    LORA = "lora"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model on disk, which may be split over several files.

    `size` is in bytes over all files, `parameters` counts weights, `context_length` is in tokens,
    `mtime` in seconds since the epoch. `path` is the file that engines are given. `chat_template`
    says whether there is one; `vision` whether images can be given, with the help of `projector`.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    size: int
    type: ModelType
    architecture: str
    parameters: int
    quantization: str | None
    context_length: int | None
    chat_template: bool
    license: str | None
    mtime: float
    projector: Path | None = None
    vision: bool = False
    format: str = "gguf"


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """A file that looks like a model and is none; `message` says why and what to do.

    `reason` is a GgufReason, or "missing_part", "mixed_parts", "not_a_model", "not_a_folder".
    """

    path: Path
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ModelScan:
    """What is there: models by name, and what is wrong with the other files."""

    models: tuple[LocalModel, ...] = ()
    problems: tuple[ModelProblem, ...] = ()
