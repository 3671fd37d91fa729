"""What weights are for, by the names and shapes of their tensors. Pure.

The names are those that the original implementations and diffusers give their modules; trainers of
LoRAs (kohya, peft, LyCORIS) add theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]

_LORA = re.compile(
    r"\.(lora_(down|up|A|B|a|b|mid)(\.\w+)?\.weight|lora\.(down|up)\.weight"
    r"|lora_linear_layer\.(down|up)\.weight|hada_w\d_[ab]|lokr_w\d(_[ab])?|oft_diag|oft_blocks"
    r"|lora_magnitude_vector|dora_scale)$"
)
_DIFFUSION = "model.diffusion_model."
_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
INPAINT_CHANNELS = 9
"""Channels that the first layer of a UNet for inpainting takes: latents, a mask, masked latents."""

# In this order: what comes first is the more certain. Each names beginnings that must all occur.
_SIGNS: Sequence[tuple[str, Sequence[tuple[str, ...]]]] = (
    (
        "controlnet",
        (("control_model.",), ("controlnet_",), ("lllite_",), ("input_hint_block.",)),
    ),
    ("ipadapter", (("ip_adapter.", "image_proj"),)),
    ("photomaker", (("id_encoder.",),)),
    (
        "diffusion_model",
        (
            (_DIFFUSION,),
            ("double_blocks.",),
            ("joint_blocks.",),
            ("time_embedding.", "down_blocks."),
            ("time_embed.", "input_blocks."),
            ("time_text_embed.", "transformer_blocks."),
            ("patch_embedding.", "time_embedding.", "blocks."),
            ("adaln_single.", "transformer_blocks."),
        ),
    ),
    (
        "vae",
        (
            ("first_stage_model.decoder.",),
            ("decoder.conv_in.", "encoder.conv_in."),
            ("decoder.up_blocks.", "encoder.down_blocks."),
            ("decoder.conv1.", "encoder.conv1."),
        ),
    ),
    ("clip_vision", (("vision_model.encoder.layers.",), ("visual.transformer.resblocks.",))),
    (
        "text_encoder",
        (
            ("text_model.encoder.layers.",),
            ("encoder.block.0.layer.0.SelfAttention.",),
            ("transformer.resblocks.", "token_embedding."),
        ),
    ),
    (
        "upscale",
        (
            ("conv_first.", "conv_last."),
            ("model.0.weight", "model.1.sub."),
            ("conv_first.", "upsample."),
        ),
    ),
    ("textual_inversion", (("emb_params",), ("clip_l", "clip_g"))),
)


def kind_of_weights(shapes: Shapes) -> str | None:
    """Return the kind of model that tensors with these names make up; None if it is not clear."""
    if any(_LORA.search(name) for name in shapes):
        return "lora"
    for kind, ways in _SIGNS:
        if any(all(_some(shapes, start) for start in way) for way in ways):
            return _complete(shapes) if kind == "diffusion_model" else kind
    return None


def _complete(shapes: Shapes) -> str:
    """Tell a diffusion model alone from a checkpoint, which has all that a picture needs."""
    whole = any(
        _some(shapes, start) for start in ("first_stage_model.", "vae.", "decoder.conv_in.")
    )
    first = shapes.get(_INPUT, ())
    if whole and len(first) == 4 and first[1] == INPAINT_CHANNELS:
        return "inpaint"
    return "checkpoint" if whole else "diffusion_model"


def _some(shapes: Shapes, start: str) -> bool:
    return any(name.startswith(start) for name in shapes)
