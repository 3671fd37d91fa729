"""Projectors: the file with which a model sees, and whether it is one for this model.

Source of the keys: llama.cpp's `tools/mtmd/clip-impl.h`. Native code aborts where a value is of
another type than it expects, so the types are compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aiplayground.gguf import GgufFile
from aiplayground.models import find_models

from .adapters import read_option, wrong_file
from .options import option_path

_TYPES = {
    "bool": (
        "clip.has_vision_encoder clip.has_audio_encoder clip.has_gen_audio_encoder clip.use_gelu "
        "clip.use_silu"
    ),
    "string": (
        "general.name general.description clip.projector_type clip.vision.projector_type "
        "clip.audio.projector_type clip.gen.audio.projector_type clip.gen.audio.model_variant "
        "clip.vision.mm_patch_merge_type"
    ),
    "float32": (
        "clip.vision.attention.layer_norm_epsilon clip.audio.attention.layer_norm_epsilon "
        "clip.vision.swiglu_clamp"
    ),
    "int32": "clip.minicpmv_version",
    "uint32": (
        "clip.minicpmv_query_num clip.vision.image_size clip.vision.patch_size "
        "clip.vision.image_min_pixels clip.vision.image_max_pixels clip.vision.preproc_min_tiles "
        "clip.vision.preproc_max_tiles clip.vision.preproc_image_size "
        "clip.vision.projector.scale_factor clip.vision.projector.query_side "
        "clip.vision.projector.window_side clip.vision.spatial_merge_size clip.vision.n_wa_pattern "
        "clip.vision.window_size clip.vision.sam.head_count clip.vision.sam.block_count "
        "clip.vision.sam.embedding_length clip.vision.expert_used_count "
    )
    + " ".join(
        f"clip.{kind}.{name}"
        for kind in ("vision", "audio")
        for name in (
            "embedding_length",
            "feed_forward_length",
            "block_count",
            "projection_dim",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.head_dim",
        )
    ),
}
TYPES = {key: kind for kind, keys in _TYPES.items() for key in keys.split()}
"""What native code expects each value to be."""

_BOUNDS = {
    "clip.vision.image_size": 16_384,
    "clip.vision.patch_size": 1024,
    "clip.vision.embedding_length": 65_536,
    "clip.vision.feed_forward_length": 1 << 20,
    "clip.vision.attention.head_count": 1024,
    "clip.vision.block_count": 1024,
}
"""Most of each; the least is 1, since native code divides by some of them."""


def find_projector(
    option: str | None,
    name: str,
    model: GgufFile,
    parts: Sequence[Path],
    report: Callable[[str], None],
) -> Path | None:
    """Return the projector that the settings name for a model, else one that lies beside it.

    An empty name is none. `parts` are the model's files. Blocks on the disk. Raises
    `InvalidSettings` if the named one cannot be used; one that only happens to lie there is then
    left, with a line in the log.
    """
    if option == "":
        return None
    if option is not None:
        path = option_path(option, model.path)
        setting = f"models.{name}.projector"
        if (why := unsuitable(read_option(path, setting), model)) is not None:
            raise wrong_file(setting, path, why)
        return path
    found = beside(parts)
    if found is None:
        return None
    why = unsuitable(read_option(found, f"models.{name}.projector"), model)
    if why is not None:
        report(f"{found.name} beside the model is not used: it {why}")
        return None
    return found


def beside(parts: Sequence[Path]) -> Path | None:
    """Return the projector in the folder of a model, by the choice that listings make."""
    others = [path for path in parts[0].parent.glob("*.gguf") if path not in parts]
    near = [path for path in others if may_be_projector(path)]
    scan = find_models((), [*parts, *near]) if near else None
    return next((model.projector for model in scan.models), None) if scan else None


def may_be_projector(path: Path) -> bool:
    """Say whether a file's first bytes leave that open; a folder may be full of large models."""
    try:
        if not path.is_file():
            return False  # to open a named pipe would mean to wait for whoever writes into it
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return False
    key = b"general.architecture"
    return key not in start or b"clip" in start[start.index(key) :][:64]


def unsuitable(file: GgufFile, model: GgufFile) -> str | None:
    """Say why a sound file cannot be the projector of a model, or None."""
    if not file.is_projector or not file.has_vision:
        return "is not a projector for images. Name the model's mmproj file."
    for key, kind in TYPES.items():
        if file.types.get(key, kind) != kind:
            return f"has a {file.types[key]} for {key}, not a {kind}. Convert it again."
    for key, most in _BOUNDS.items():
        value = file.integer(key)
        if value is None or not 0 < value <= most:
            return f"has {value} for {key}, not 1 to {most}. Download or convert it again."
    # Of other kinds llama.cpp compares the width itself, and refuses.
    if file.projection_length not in (None, model.embedding_length):
        return (
            f"makes embeddings of {file.projection_length} numbers, and this model's have "
            f"{model.embedding_length}. Use the projector that was made for the model."
        )
    return None
