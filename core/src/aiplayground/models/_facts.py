"""What a listing needs to know of a model's files, small enough to keep for thousands of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aiplayground.gguf import GgufFile

from ._found import FileGroup, FoundFile, split_name
from ._types import Format, ModelProblem

# Values of general.type that go beside a model, or are none; "model" and silence mean a model.
_NOT_MODELS = frozenset({"imatrix", "vocab"})

# Architectures that stable-diffusion.cpp and ComfyUI-GGUF write: no engine for text takes them.
_DIFFUSION = frozenset(
    {
        "sd1", "sd2", "sd3", "sdxl", "flux", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan",
        "lumina2", "qwen_image", "chroma",
    }
)  # fmt: skip
_TEXT_ENCODERS = frozenset({"t5encoder"})

PROJECTOR = "projector"
"""Not a model: what lets one see or hear."""

OTHER = "other"
"""No model at all: a vocabulary, statistics."""

UNKNOWN = "unknown"
"""Weights that do not say what they are for; their folder may."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The listed part of one file's metadata; of a split model, of all its files.

    `kind` is one of `KINDS`, or one of the constants here. `width` is the embedding length of a
    model, and for a projector that of the model it fits.
    """

    kind: str
    architecture: str = ""
    parameters: int = 0
    quantization: str | None = None
    context_length: int | None = None
    chat_template: bool = False
    license: str | None = None
    width: int | None = None
    vision: bool = False
    tensors: int = 0
    split_number: int = 0
    split_count: int = 1
    split_tensors: int | None = None


def facts_of(file: GgufFile) -> Facts:
    """Summarise one GGUF file."""
    return Facts(
        kind=_kind(file),
        architecture=file.architecture or "",
        parameters=file.parameters,
        quantization=file.quantization,
        context_length=file.context_length,
        chat_template=file.chat_template is not None,
        license=file.license,
        width=_projector_width(file) if file.is_projector else file.embedding_length,
        vision=file.has_vision,
        tensors=len(file.tensors),
        split_number=file.split_number,
        split_count=file.split_count,
        split_tensors=file.split_tensors,
    )


def check_group(
    group: FileGroup, known: dict[FoundFile, Facts | ModelProblem]
) -> Facts | ModelProblem:
    """Return what the files of one model say together, or the first thing wrong with them."""
    if group.missing:
        return _missing_part(group)
    parts: list[Facts] = []
    for file in group.files:
        facts = known[file]
        problem = facts if isinstance(facts, ModelProblem) else _misplaced(file, facts)
        if problem is not None:
            return problem
        if isinstance(facts, Facts):
            parts.append(facts)
    return _whole(group, parts)


def _projector_width(file: GgufFile) -> int | None:
    # Some converters write 0 for what they do not know.
    return file.projection_length or file.integer("clip.vision.projection_dim") or None


def _kind(file: GgufFile) -> str:
    if file.is_projector:
        return PROJECTOR
    if file.is_adapter:
        return "lora"
    if file.architecture is None or file.text("general.type") in _NOT_MODELS:
        return OTHER
    if file.architecture in _DIFFUSION:
        return "diffusion_model"
    if file.architecture in _TEXT_ENCODERS:
        return "text_encoder"
    return "embedding" if file.is_embedding else "llm"


def _missing_part(group: FileGroup) -> ModelProblem:
    path = group.files[0].path
    are = "is" if len(group.missing) == 1 else "are"
    text = (
        f"The model {group.stem} is split over several files, and {', '.join(group.missing)} {are} "
        f"missing beside {path.name}. Download all parts into one folder."
    )
    return ModelProblem(path, "missing_part", text)


def _misplaced(file: FoundFile, facts: Facts) -> ModelProblem | None:
    """Compare a part's name with its content: engines find the other parts by name."""
    if file.format is not Format.GGUF or file.label:
        return None
    name = split_name(file.name)
    number, count = (name.number, name.count) if name else (1, 1)
    if (facts.split_number + 1, facts.split_count) == (number, count):
        return None
    text = (
        f"{file.path.name} is part {facts.split_number + 1} of {facts.split_count} by its content, "
        f"but part {number} of {count} by its name. Download the model's parts again under their "
        "own names."
    )
    return ModelProblem(file.path, "mixed_parts", text)


def _is_plain(facts: Facts) -> bool:
    """Say whether one file is a model by itself and says all: nearly all are."""
    whole = facts.split_tensors in (None, facts.tensors) and facts.tensors > 0
    return whole and facts.kind != OTHER and facts.quantization is not None


def _whole(group: FileGroup, parts: Sequence[Facts]) -> Facts | ModelProblem:
    path, first = group.files[0].path, parts[0]
    if group.files[0].format is not Format.GGUF:
        return replace(first, parameters=sum(part.parameters for part in parts))
    if len(parts) == 1 and _is_plain(first):
        return first
    tensors = sum(part.tensors for part in parts)
    if first.split_tensors not in (None, tensors):
        text = f"The parts of {group.stem} hold {tensors} tensors and should hold "
        text += f"{first.split_tensors}: they belong to different models. Download all of them."
        return ModelProblem(path, "mixed_parts", text)
    if first.kind == OTHER or not tensors:
        text = f"{path.name} is a sound GGUF file, but holds no model (a vocabulary or statistics, "
        text += "perhaps). Move it out of the model folder."
        return ModelProblem(path, "not_a_model", text)
    # Only the first part carries the metadata, and it may hold no tensors.
    quantization = next((part.quantization for part in parts if part.quantization), None)
    parameters = sum(part.parameters for part in parts)
    return replace(first, parameters=parameters, quantization=quantization, tensors=tensors)
