"""From the image part of a request to pixels, with limits. Nothing is fetched, no file is read.

Source of the shape: the OpenAI API reference, "Chat", content part `image_url`.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import secrets
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiplayground.errors import InvalidParameters

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Of a moving image the first frame counts."""

MAX_IMAGES = 16
"""In one request."""

MAX_BYTES = 16 * 2**20
"""Of one image, as a file."""

MAX_PIXELS = 40_000_000
"""Of one image: more than any model looks at, and 120 MB of memory while it is made smaller."""

MAX_TOTAL = 2 * MAX_PIXELS
"""Pixels of all images of a request."""

MAX_ASPECT = 100
"""Longer side to shorter: models scale what is narrower than this to nothing."""

DETAILS = (None, "auto", "high")
"""How closely to look: always as closely as the model can."""


class Picture(NamedTuple):
    """An image as pixels, three bytes each; `digest` is the SHA-256 of its file, in hex."""

    width: int
    height: int
    rgb: bytes
    digest: str


class Gallery:
    """The images of one request: each has a mark that stands for it in texts."""

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}

    def add(self, part: Mapping[str, Any], field: str) -> str:
        """Take in an image part; return its mark. Raises `InvalidParameters` naming the field."""
        if len(self.pictures) >= MAX_IMAGES:
            raise _refused(field, f"is one image too many; {MAX_IMAGES} are the most.")
        picture = picture_of(part, field)
        if sum(len(each.rgb) // 3 for each in (picture, *self.pictures.values())) > MAX_TOTAL:
            raise _refused(
                field, f"makes it more than {MAX_TOTAL:,} pixels in all. Send smaller images."
            )
        mark = f"x{secrets.token_hex(8)}x"
        self.pictures[mark] = picture
        return mark


def picture_of(part: Mapping[str, Any], field: str) -> Picture:
    """Decode an image part. Raises `InvalidParameters` naming the field; blocks."""
    value = part.get("image_url")
    fields = value if isinstance(value, dict) else {"url": value}
    if fields.get("detail") not in DETAILS:
        raise _refused(field, "has a 'detail' other than 'auto' and 'high'. Leave it out.")
    data = _data(fields.get("url"), f"{field}.image_url")
    return decode(data, field)


def _data(url: object, field: str) -> bytes:
    if not isinstance(url, str) or not url:
        raise _refused(field, "must have the field 'url'.")
    head, comma, body = url.partition(",")
    if not comma or not head[:5].lower() == "data:" or not head.lower().endswith(";base64"):
        raise _refused(
            field,
            "must be a data URL (data:image/png;base64,…): images are not fetched from elsewhere.",
        )
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise _refused(field, f"has more than {MAX_BYTES // 2**20} MiB. Send a smaller image.")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(field, f"is not valid base64: {error}.") from error


def decode(data: bytes, field: str) -> Picture:
    """Decode an image file in memory. Raises `InvalidParameters` naming the field; blocks."""
    from PIL import Image, ImageOps  # here: most requests have no images

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, field)
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except InvalidParameters:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refused(
            field, f"has too many pixels; {MAX_PIXELS:,} are the most. Send a smaller image."
        ) from error
    except Exception as error:  # decoders of damaged files raise anything at all
        raise _refused(
            field,
            f"cannot be decoded ({type(error).__name__}). Send a sound PNG, JPEG, WebP, GIF or "
            "BMP image.",
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    return Picture(*upright.size, upright.tobytes(), digest)


def _check_size(width: int, height: int, field: str) -> None:
    if width * height > MAX_PIXELS:
        raise _refused(
            field,
            f"has {width} x {height} pixels; {MAX_PIXELS:,} are the most. Send a smaller image.",
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _refused(
            field,
            f"has {width} x {height} pixels: one side may be {MAX_ASPECT} times the other at "
            "most. Cut it into pieces.",
        )


def _refused(field: str, why: str) -> InvalidParameters:
    return InvalidParameters(f"'{field}' {why}", details={"field": field})
