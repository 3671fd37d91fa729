"""What is checked of a model for `llama-server` alone, before the present one is given up."""

from __future__ import annotations

from pathlib import Path

from aiplayground.gguf import GgufFile
from aiplayground_llamacpp.adapters import read_option, wrong_file
from aiplayground_llamacpp.enginelog import bad_model
from aiplayground_llamacpp.headers import impossible
from aiplayground_llamacpp.options import model_options, option_path
from aiplayground_llamacpp.settings import Settings

ENCODER, ENCODER_DECODER = "t5encoder", "t5"


def check_here(gguf: GgufFile) -> None:
    """Refuse what llama-server does not compute, or computes wrongly: `InvalidModelFile`."""
    if gguf.architecture == ENCODER:
        raise bad_model(
            gguf.path,
            "is a T5 encoder, of which llama-server makes wrong vectors. Set engine = 'python' for "
            "it.",
        )
    if gguf.architecture == ENCODER_DECODER:
        raise bad_model(
            gguf.path, "is an encoder-decoder model, which llamacpp-backend does not serve."
        )


def find_draft(settings: Settings, name: str, gguf: GgufFile) -> Path | None:
    """Return the draft model that the settings name. Blocks; raises `InvalidSettings`."""
    option = model_options(settings, name).draft
    if not option:
        return None
    path, setting = option_path(option, gguf.path), f"models.{name}.draft"
    file = read_option(path, setting)
    if file.is_projector or file.is_adapter or file.is_embedding:
        raise wrong_file(setting, path, "is no model that writes. Name a small one of its family.")
    if (why := impossible(file)) is not None:
        raise wrong_file(setting, path, why)
    return path
