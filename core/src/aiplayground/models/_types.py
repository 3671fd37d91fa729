"""The plain values that a listing of local models consists of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelType(StrEnum):
    """What a model is for, as `ModelInfo.type` of the API reference has it: the keys of `KINDS`."""

    LLM = "llm"
    EMBEDDING = "embedding"
    CHECKPOINT = "checkpoint"
    INPAINT = "inpaint"
    LORA = "lora"
    VAE = "vae"
    CONTROLNET = "controlnet"
    UPSCALE = "upscale"
    DIFFUSION_MODEL = "diffusion_model"
    TEXT_ENCODER = "text_encoder"
    CLIP_VISION = "clip_vision"
    STYLE_MODEL = "style_model"
    TEXTUAL_INVERSION = "textual_inversion"
    HYPERNETWORK = "hypernetwork"
    GLIGEN = "gligen"
    PHOTOMAKER = "photomaker"
    IPADAPTER = "ipadapter"
    VAE_APPROX = "vae_approx"
    AUDIO_ENCODER = "audio_encoder"
    MODEL_PATCH = "model_patch"
    LATENT_UPSCALE = "latent_upscale"
    STT = "stt"
    TTS = "tts"
    FACE_SWAP = "face_swap"
    FACE_RESTORE = "face_restore"
    NSFW_DETECTOR = "nsfw_detector"


class Format(StrEnum):
    """How a model is stored: one of the file formats, or a folder of files that belong together."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    PICKLE = "pickle"
    OPENVINO = "openvino"
    TRANSFORMERS = "transformers"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model on disk, which may be split over several files.

    `size` is in bytes over all files, `parameters` counts weights, `context_length` is in tokens,
    `mtime` in seconds since the epoch. `path` is the file, or the folder, that engines are given.
    `chat_template` says whether there is one; `vision` whether images can be given, with the help
    of `projector` in GGUF. `repo` is the repository it came from, where its place says so.
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
    repo: str | None = None


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
