"""Images on their way to `llama-server`, which takes a prompt with them as text with markers.

Source of the form: "POST /completion" in `tools/server/README.md` of llama.cpp (`prompt_string`,
`multimodal_data`). All of that text counts control tokens: what a person wrote must not be one.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from aiplayground.gguf import GgufFile
from aiplayground_llamacpp.pictures import Picture
from aiplayground_llamacpp.prompt import Tokenizer, ends_with_image
from aiplayground_llamacpp.sight import Reading, Words

from .texts import broken_up

OLD_MARKER = "<__media__>"
"""What stands for an image where the program does not tell a marker of its own."""

MOST_AT_ONCE = 1120
"""Tokens of an image at most, of models that must see it as a whole."""

_WHOLE = ("gemma4v", "gemma4uv", "deepseek4v")


class Scene(NamedTuple):
    """A prompt with images: a marker stands for each; `files` are in base64."""

    text: str
    files: tuple[str, ...]


class Eyes:
    """Sees for one request: implements `prompt.Eyes`. `scene` is there once `read` was called."""

    def __init__(self, tokenizer: Tokenizer, marker: str) -> None:
        self.scene: Scene | None = None
        self._tokenizer = tokenizer
        self._marker = marker

    def read(self, parts: Sequence[Words | Picture], *, add_special: bool) -> Reading:
        """Keep a prompt as a scene; its tokens are llama-server's to make. Blocks."""
        if isinstance(parts[-1], Picture):
            raise ends_with_image()
        text = "".join(self._text_of(part) for part in parts)
        if not add_special and self._begins_texts():
            text = text.removeprefix(self._tokenizer.bos_text)  # else there would be two
        files = tuple(file_of(part) for part in parts if isinstance(part, Picture))
        self.scene = Scene(text, files)
        return Reading([], ())

    def _text_of(self, part: Words | Picture) -> str:
        if isinstance(part, Picture):
            return self._marker
        return broken_up(part.text, [self._marker] if part.control else [self._marker, part.text])

    def _begins_texts(self) -> bool:
        """Say whether texts get the first token from the tokenizer too."""
        bos = self._tokenizer.bos_text
        first = self._tokenizer.tokenize(bos, add_special=False, parse_special=True)
        return self._tokenizer.tokenize("x", add_special=True, parse_special=True)[:1] == first


def file_of(picture: Picture) -> str:
    """Return an image as PNG in base64: every pixel as it was decoded here."""
    from PIL import Image  # here: most requests have no images

    file = io.BytesIO()
    pixels = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    pixels.save(file, "PNG", compress_level=1)
    return b64encode(file.getvalue()).decode("ascii")


def tokens_at_once(projector: GgufFile) -> int:
    """Return how many tokens a batch must hold so that an image is seen as a whole, or 0.

    Source: `mtmd_decode_use_non_causal` and the sizes of images in llama.cpp's `tools/mtmd`.
    """
    kind = projector.text("clip.vision.projector_type") or projector.text("clip.projector_type")
    if kind != "gemma3":
        return MOST_AT_ONCE if kind in _WHOLE else 0
    side, patch = (
        projector.integer(f"clip.vision.{name}") for name in ("image_size", "patch_size")
    )
    scale = projector.integer("clip.vision.projector.scale_factor") or 4
    return (side // (patch * scale)) ** 2 if side and patch else MOST_AT_ONCE
