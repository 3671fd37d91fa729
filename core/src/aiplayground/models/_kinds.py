"""The kinds of models: what they are called outside, and which folder each has.

The first six are those of `ModelPaths` in the API reference. Where ComfyUI has a folder for a kind
(`folder_paths.py` of ComfyUI), ours has that name, so that one root serves both programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aiplayground.errors import InvalidParameters, suggest


class KindOfModel(NamedTuple):
    """A kind: its folder below the root, for people, and what else its folder is called."""

    folder: str
    title: str
    other_names: tuple[str, ...] = ()


KINDS: Mapping[str, KindOfModel] = MappingProxyType(
    {
        "llm": KindOfModel("llm", "language models", ("ggufllm", "openvinollm")),
        "embedding": KindOfModel("embedding", "models that turn text into vectors"),
        "checkpoint": KindOfModel(
            "checkpoints", "complete image and video models", ("openvino-image", "diffusers")
        ),
        "inpaint": KindOfModel("inpaint", "models that fill in parts of a picture"),
        "lora": KindOfModel("loras", "LoRA adapters", ("lycoris",)),
        "vae": KindOfModel("vae", "autoencoders between pictures and latents"),
        "controlnet": KindOfModel("controlnet", "ControlNets", ("t2i_adapter",)),
        "upscale": KindOfModel("upscale_models", "models that enlarge pictures", ("esrgan",)),
        "diffusion_model": KindOfModel("diffusion_models", "diffusion models alone", ("unet",)),
        "text_encoder": KindOfModel("text_encoders", "text encoders", ("clip",)),
        "clip_vision": KindOfModel("clip_vision", "image encoders"),
        "style_model": KindOfModel("style_models", "style models"),
        "textual_inversion": KindOfModel("embeddings", "textual inversions"),
        "hypernetwork": KindOfModel("hypernetworks", "hypernetworks"),
        "gligen": KindOfModel("gligen", "GLIGEN models"),
        "photomaker": KindOfModel("photomaker", "PhotoMaker models"),
        "ipadapter": KindOfModel("ipadapter", "IP-Adapters"),
        "vae_approx": KindOfModel("vae_approx", "small autoencoders for previews"),
        "audio_encoder": KindOfModel("audio_encoders", "audio encoders"),
        "model_patch": KindOfModel("model_patches", "patches of models"),
        "latent_upscale": KindOfModel("latent_upscale_models", "models that enlarge latents"),
        "stt": KindOfModel("stt", "speech to text"),
        "tts": KindOfModel("tts", "text to speech"),
        "face_swap": KindOfModel("insightface", "models that swap faces", ("faceswap",)),
        "face_restore": KindOfModel("facerestore_models", "models that restore faces"),
        "nsfw_detector": KindOfModel("nsfw_detector", "models that detect unsafe pictures"),
    }
)
"""Every kind by its outside name, which is also `ModelInfo.type`."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        name.replace("_", "").replace("-", ""): kind
        for kind, each in KINDS.items()
        for name in (kind, f"{kind}s", each.folder, *each.other_names)
        # A folder "embeddings" holds textual inversions, as in ComfyUI.
        if (kind, name) != ("embedding", "embeddings")
    }
)


def kind_named(name: str) -> str | None:
    """Return the kind that a name means: its own, in the plural, its folder's, or another's.

    Upper case, `-` and `_` make no difference: other programs write `controlNet` and `clip-vision`.
    """
    return _NAMES.get(name.casefold().replace("_", "").replace("-", ""))


def checked_kind(name: str) -> str:
    """Return the kind that a name means. Raises `InvalidParameters` with a suggestion."""
    kind = kind_named(name)
    if kind is None:
        raise InvalidParameters(
            f"There is no kind of model '{name}'.{suggest(name, KINDS)} Kinds: {', '.join(KINDS)}.",
            details={"field": "type", "kinds": list(KINDS)},
        )
    return kind
