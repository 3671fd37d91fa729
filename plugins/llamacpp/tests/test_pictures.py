"""From data URLs to pixels, and where the limits are."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from plugins.llamacpp.tests.tiny_parts import data_url, picture

from aiplayground.errors import InvalidParameters
from aiplayground_llamacpp import pictures
from aiplayground_llamacpp.pictures import MAX_BYTES, MAX_IMAGES, Gallery, decode, picture_of


def file_of(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return the start of an image that claims a size; its pixels never come."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9999) + b"IDAT"


def test_pixels_and_digest() -> None:
    data = file_of(Image.frombytes("RGB", (2, 1), b"abcdef"))
    found = decode(data, "x")
    assert found == (2, 1, b"abcdef", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("L", 7, (7, 7, 7)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(mode: str, pixel: Any, expected: Any) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new(mode, (3, 3), pixel)
    if form == "TIFF":
        image, form = image.convert("CMYK"), "JPEG"
    found = decode(file_of(image, form), "x")
    assert found.rgb == bytes(expected) * 9


def test_the_first_frame_of_a_moving_image_counts() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, "x").rgb[:3] == b"\xff\0\0"


def test_a_photograph_is_turned_as_it_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    data = file_of(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    assert decode(data, "x")[:2] == (20, 40)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png_header(100_000, 100_000), "too many pixels; 40,000,000 are the most"),
        (png_header(10_000, 10_000), "pixels; 40,000,000 are the most"),
        (png_header(7000, 7000), "7000 x 7000"),
        (png_header(1001, 10), "100 times the other"),
        (png_header(100, 100), "cannot be decoded"),
        (b"", "cannot be decoded"),
        (file_of(Image.new("RGB", (4, 4)), "TIFF"), "cannot be decoded"),
        (file_of(Image.new("RGB", (4, 4)), "PPM"), "cannot be decoded"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidParameters, match=words) as caught:
        decode(data, "messages[2]")
    assert caught.value.details == {"field": "messages[2]"}


def test_a_file_that_is_too_large_is_not_even_decoded() -> None:
    url = "data:image/png;base64," + "!" * (MAX_BYTES * 4 // 3 + 5)
    with pytest.raises(InvalidParameters, match="more than 16 MiB"):
        picture_of({"image_url": {"url": url}}, "x")


def test_a_gallery_gives_each_image_a_mark() -> None:
    gallery = Gallery()
    part = {"type": "image_url", "image_url": {"url": data_url(picture(1)), "detail": "high"}}
    marks = [gallery.add(part, "x") for _ in range(MAX_IMAGES)]
    assert len({*marks}) == MAX_IMAGES == len(gallery.pictures)
    assert len({each.digest for each in gallery.pictures.values()}) == 1
    with pytest.raises(InvalidParameters, match="too many"):
        gallery.add(part, "x")


def test_the_images_of_a_request_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_TOTAL", 2 * 40 * 40)
    gallery = Gallery()
    part = {"image_url": data_url(picture(1))}
    gallery.add(part, "x")
    gallery.add(part, "x")
    with pytest.raises(InvalidParameters, match="3,200 pixels in all"):
        gallery.add(part, "x")
    assert len(gallery.pictures) == 2
