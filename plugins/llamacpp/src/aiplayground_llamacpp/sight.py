"""What lets a model see: every native call on a projector, with its checks.

A picture becomes one or more *images*, each a run of embeddings that stand in the prompt like
tokens. `Sight.read` may be called from any thread, the rest from the engine's alone.

Source of the calls: `tools/mtmd/mtmd.h` of llama.cpp.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aiplayground.errors import FailureClass, InvalidParameters, ServiceFailed

from .bindings import EngineLog, load_vision_bindings
from .enginelog import diagnose
from .machine import default_threads
from .native import Model, unloaded
from .pictures import Picture
from .settings import Settings

_FLASH = {"auto": -1, "off": 0, "on": 1}
_IMAGE = 1  # enum mtmd_input_chunk_type


class Words(NamedTuple):
    """Text of a prompt; `control`: the texts of control tokens in it count as such."""

    text: str
    control: bool


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A run of embeddings in a prompt.

    It takes `length` places from `start` on, and memory for `size` tokens, which is more where the
    model knows rows and columns. `chunk` is the native image; `owner` keeps it alive.
    """

    start: int
    length: int
    size: int
    chunk: Any
    owner: Any

    @property
    def end(self) -> int:
        """The place behind it."""
        return self.start + self.length


class Reading(NamedTuple):
    """A prompt with images: in their places stand numbers below zero that identify them."""

    tokens: list[int]
    images: tuple[Image, ...]


class Sight:
    """A projector in memory, for one model."""

    def __init__(self, model: Model, log: EngineLog, path: Path, settings: Settings) -> None:
        """Load a checked file. Raises `InvalidModelFile` if llama.cpp does not take it."""
        self._lib = lib = load_vision_bindings()
        log.install_vision(lib)
        self._lock = threading.Lock()
        log.clear()
        self._context = lib.mtmd_init_from_file(
            str(path).encode(),
            model.pointer,
            _parameters(lib, max(model.size, path.stat().st_size), settings),
        )
        if not self._context:
            raise diagnose(log.lines(), path)
        self._vocab = model.vocab
        self._width = int(model.lib.llama_model_n_embd_inp(model.pointer))
        self.causal = not lib.mtmd_decode_use_non_causal(self._context, None)
        self._rows = bool(lib.mtmd_decode_use_mrope(self._context))

    def read(self, parts: Sequence[Words | Picture], *, add_special: bool) -> Reading:
        """Turn a prompt into tokens and images. From any thread; blocks.

        Raises `InvalidParameters` for a picture that the projector cannot take, and
        `ServiceNotAvailable` after `close`.
        """
        with self._lock:
            if not self._context:
                raise unloaded()
            return self._read(parts, add_special)

    def encode(self, image: Image) -> ctypes.Array[ctypes.c_float]:
        """Compute the embeddings of an image; takes from milliseconds to many seconds.

        Raises `ServiceFailed` if llama.cpp cannot.
        """
        if status := self._lib.mtmd_encode_chunk(self._context, image.chunk):
            raise ServiceFailed(
                f"llama.cpp failed to read an image (status {status}). Send a smaller one, or "
                "use another model.",
                failure=FailureClass.CRASH,
                details={"status": status},
            )
        # The library's own memory is written over by the next image.
        embeddings = (ctypes.c_float * (image.size * self._width))()
        found = self._lib.mtmd_get_output_embd(self._context)
        ctypes.memmove(embeddings, found, ctypes.sizeof(embeddings))
        return embeddings

    def part(self, embeddings: ctypes.Array[ctypes.c_float], first: int) -> Any:
        """Return a pointer to the embeddings from the given one on."""
        offset = first * self._width * ctypes.sizeof(ctypes.c_float)
        return ctypes.cast(ctypes.byref(embeddings, offset), ctypes.POINTER(ctypes.c_float))

    def positions(self, image: Image, first: int, count: int) -> list[int]:
        """Return the positions of some of its embeddings, one section after the other."""
        if not self._rows:
            return list(range(image.start + first, image.start + first + count))
        tokens = self._lib.mtmd_input_chunk_get_tokens_image(image.chunk)
        places = [
            self._lib.mtmd_image_tokens_get_decoder_pos(tokens, image.start, first + n)
            for n in range(count)
        ]
        return [int(getattr(place, axis)) for axis in "tyxz" for place in places]

    def close(self) -> None:
        """Free it."""
        with self._lock:
            if self._context:
                self._lib.mtmd_free(self._context)
                self._context = None

    def _read(self, parts: Sequence[Words | Picture], add_special: bool) -> Reading:
        lib = self._lib
        with _Native(lib, parts) as native:
            chunks = _Chunks(lib)
            status = lib.mtmd_tokenize_from_parts(
                self._context, chunks.pointer, native.pointers, len(parts), add_special
            )
        if status:
            raise unfit_image()
        tokens: list[int] = []
        images: list[Image] = []
        for chunk in chunks:
            if lib.mtmd_input_chunk_get_type(chunk) == _IMAGE:
                image = self._image(chunk, chunks, len(tokens))
                mark = self._identity(image, len(images))
                images.append(image)
                tokens += [mark] * image.length
            else:
                count = ctypes.c_size_t()
                found = lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                tokens += found[: count.value]
        return Reading(tokens, tuple(images))

    def _image(self, chunk: Any, owner: Any, start: int) -> Image:
        lib = self._lib
        length = int(lib.mtmd_input_chunk_get_n_pos(chunk))
        size = int(lib.mtmd_input_chunk_get_n_tokens(chunk))
        return Image(start, length, size, chunk, owner)

    def _identity(self, image: Image, number: int) -> int:
        """Return a number below zero that no other image has, nor the same one cut otherwise."""
        name = self._lib.mtmd_input_chunk_get_id(image.chunk) or b""
        told = b"%s %d %d %d" % (name, number, image.length, image.size)
        return -1 - int.from_bytes(hashlib.sha256(told).digest())


def unfit_image() -> InvalidParameters:
    """Say that the projector cannot take an image."""
    return InvalidParameters(
        "The model cannot take an image of this size or shape. Send another one.",
        details={"field": "messages"},
    )


class _Chunks:
    """The native list of the pieces of a prompt, freed with the last image of it."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.pointer = lib.mtmd_input_chunks_init()
        weakref.finalize(self, lib.mtmd_input_chunks_free, self.pointer).atexit = False

    def __iter__(self) -> Any:
        size = self._lib.mtmd_input_chunks_size(self.pointer)
        return (self._lib.mtmd_input_chunks_get(self.pointer, n) for n in range(size))


class _Native:
    """The parts of a prompt as the library wants them."""

    def __init__(self, lib: Any, parts: Sequence[Words | Picture]) -> None:
        self._lib = lib
        self._bitmaps: list[Any] = []
        self._kept: list[Any] = []
        kind = ctypes.POINTER(lib.mtmd_input_part)
        self.pointers = (kind * len(parts))(*(ctypes.pointer(self._part(part)) for part in parts))

    def __enter__(self) -> _Native:
        return self

    def __exit__(self, *_: object) -> None:
        for bitmap in self._bitmaps:
            self._lib.mtmd_bitmap_free(bitmap)

    def _part(self, part: Words | Picture) -> Any:
        native = self._lib.mtmd_input_part()
        if isinstance(part, Words):
            data = part.text.encode()
            text = self._lib.mtmd_input_text(data, len(data), False, part.control)
            native.text = ctypes.pointer(text)
            self._kept += [data, text]
        else:
            native.bitmap = self._bitmap(part)
        self._kept.append(native)
        return native

    def _bitmap(self, picture: Picture) -> Any:
        pixels = ctypes.cast(ctypes.c_char_p(picture.rgb), ctypes.POINTER(ctypes.c_uint8))
        bitmap = self._lib.mtmd_bitmap_init(picture.width, picture.height, pixels)
        self._lib.mtmd_bitmap_set_id(bitmap, picture.digest.encode())
        self._bitmaps.append(bitmap)
        return bitmap


def _parameters(lib: Any, size: int, settings: Settings) -> Any:
    parameters = lib.mtmd_context_params_default()
    parameters.use_gpu = settings.gpu_layers != 0 and settings.devices != ("none",)
    parameters.print_timings = False
    parameters.n_threads = settings.threads or default_threads(size)
    parameters.flash_attn_type = _FLASH[settings.flash_attention]
    # A first image at load: what is wrong with the file then shows there, not at a request.
    parameters.warmup = True
    return parameters
