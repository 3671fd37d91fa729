"""The devices that llama.cpp's library finds, and the choice of some: calls of ggml.

Source of the calls: `ggml/include/ggml-backend.h` of llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiplayground.errors import InvalidSettings

NO_DEVICE = "none"
CPU, GPU, IGPU, ACCELERATOR, META = range(5)  # enum ggml_backend_dev_type


@dataclass(frozen=True, slots=True)
class Backend:
    """A device: `id` is llama.cpp's name for it, `memory` and `free` are in bytes."""

    id: str
    name: str
    type: int
    memory: int
    pointer: int
    free: int | None = None


def find_backends(lib: Any) -> list[Backend]:
    """Return all devices; `lib` is the module of `bindings.load_bindings`, initialised."""
    ggml = _typed(_library(lib))
    return [_backend(ggml, ggml.ggml_backend_dev_get(n)) for n in range(_count(ggml))]


def selectable(backends: Iterable[Backend]) -> list[Backend]:
    """Return the devices that layers can be put on: what computes beside the CPU."""
    return [each for each in backends if each.type in (GPU, IGPU)]


def device_array(lib: Any, wanted: Sequence[str]) -> Any:
    """Return `llama_model_params.devices` for the devices of these names; None for all.

    The caller keeps it until the model is loaded. Raises `InvalidSettings` that lists what there is
    for a name that is none.
    """
    if not wanted:
        return None
    chosen = [] if list(wanted) == [NO_DEVICE] else choose(wanted, selectable(find_backends(lib)))
    return (ctypes.c_void_p * (len(chosen) + 1))(*(each.pointer for each in chosen), None)


def choose(wanted: Sequence[str], found: Sequence[Backend]) -> list[Backend]:
    """Return the devices of these names, in that order: pure."""
    by_id = {each.id: each for each in found}
    for name in wanted:
        if name not in by_id:
            raise unknown_device(name, by_id)
    return [by_id[name] for name in wanted]


def unknown_device(name: str, known: Iterable[str]) -> InvalidSettings:
    """Say that there is no such device."""
    names = ", ".join(known) or "none beside the CPU"
    return InvalidSettings(
        f"Setting 'devices': llama.cpp finds no device {name!r} here. There are: {names}. "
        f"`aipg devices` lists them; '{NO_DEVICE}' takes the CPU alone.",
        details={"device": name},
    )


def _library(lib: Any) -> Any:
    # The library that is loaded depends on ggml's: by its handle, their functions are found too,
    # except on Windows, where each has to be opened by its own name.
    loaded = lib._lib  # noqa: SLF001  # the bindings' only word on which file they loaded
    if hasattr(loaded, "ggml_backend_dev_count"):
        return loaded
    from pathlib import Path

    return ctypes.CDLL(str(Path(loaded._name).with_name("ggml.dll")))  # noqa: SLF001  # as above


def _typed(ggml: Any) -> Any:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    ggml.ggml_backend_dev_count.restype = size
    ggml.ggml_backend_dev_get.argtypes, ggml.ggml_backend_dev_get.restype = [size], pointer
    for name, result in (
        ("ggml_backend_dev_name", ctypes.c_char_p),
        ("ggml_backend_dev_description", ctypes.c_char_p),
        ("ggml_backend_dev_type", ctypes.c_int),
    ):
        function = getattr(ggml, name)
        function.argtypes, function.restype = [pointer], result
    sizes = ctypes.POINTER(size)
    ggml.ggml_backend_dev_memory.argtypes = [pointer, sizes, sizes]
    ggml.ggml_backend_dev_memory.restype = None
    return ggml


def _count(ggml: Any) -> int:
    return int(ggml.ggml_backend_dev_count())


def _backend(ggml: Any, pointer: int) -> Backend:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(pointer, ctypes.byref(free), ctypes.byref(total))
    return Backend(
        id=ggml.ggml_backend_dev_name(pointer).decode("utf-8", "replace"),
        name=ggml.ggml_backend_dev_description(pointer).decode("utf-8", "replace"),
        type=int(ggml.ggml_backend_dev_type(pointer)),
        memory=int(total.value),
        pointer=pointer,
        free=int(free.value),
    )
