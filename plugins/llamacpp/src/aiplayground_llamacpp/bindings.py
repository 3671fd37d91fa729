"""The low-level bindings of llama-cpp-python, and the engine's log.

Importing the package `llama_cpp` brings in numpy, jinja2 and its whole high-level API: half a
second in which nobody is served. The module with the C functions needs none of it.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from aiplayground.errors import FailureClass, ServiceFailed

from .enginelog import WARN, LogBuffer, LogLine

PACKAGE = "llama_cpp"
EXPECTED = "possible training context overflow"
"""What llama.cpp warns of where the context is shared by several answers: no single one gets more
than the model was trained on, or `load` says so."""

REINSTALL = "Install it again: pip install --force-reinstall --no-cache-dir llama-cpp-python."


def load_bindings() -> Any:
    """Import the C functions of llama.cpp, as the module `llama_cpp.llama_cpp`.

    The package's own `__init__` runs when somebody asks for something of it, and not before.
    Raises `ServiceFailed` if the package or a shared library is missing.
    """
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise ServiceFailed(
                "The package llama-cpp-python is not installed. Install it: "
                "pip install llama-cpp-python.",
                failure=FailureClass.NOT_INSTALLED,
            )
        sys.modules[PACKAGE] = _deferred(spec)
    try:
        return importlib.import_module(f"{PACKAGE}.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise missing_library(error) from error


def load_vision_bindings() -> Any:
    """Import the C functions of llama.cpp that read images; after `load_bindings`.

    Raises `ServiceFailed` if the shared library is missing or too old.
    """
    try:
        library = importlib.import_module(f"{PACKAGE}.mtmd_cpp")
        library.mtmd_tokenize_from_parts  # noqa: B018  # the newest of the functions in use
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise missing_library(error) from error
    return library


def _deferred(spec: ModuleSpec) -> ModuleType:
    """Return the package as a module that runs its `__init__` at the first name it lacks."""
    package = importlib.util.module_from_spec(spec)

    def complete(name: str) -> Any:
        if name.startswith("__") or spec.loader is None:
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        if vars(package).pop("__getattr__", None) is not None:
            spec.loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = complete
    return package


def missing_library(error: Exception) -> ServiceFailed:
    """Say which shared library is missing; an AttributeError is a function that it lacks."""
    return ServiceFailed(
        f"llama.cpp's shared library cannot be loaded: {error}. {REINSTALL}",
        failure=FailureClass.MISSING_LIBRARY,
        details={"exception": type(error).__name__},
    )


def holding_the_lock(lib: Any, function: Any, result: Any = None) -> Any:
    """Return a function of the library that is called without giving up the interpreter's lock.

    `result` is what its result is read as, if not as the bindings say.

    For calls of microseconds, made for each token: giving the lock up would cost up to 5 ms, the
    switch interval, whenever another thread is busy.
    """
    name = lib._lib._name  # noqa: SLF001  # the bindings' only word on which file they loaded
    # The same name opens the same library again: PyDLL adds a reference, not a copy.
    held = getattr(ctypes.PyDLL(name), function.__name__)
    held.argtypes, held.restype = function.argtypes, result or function.restype
    return held


class EngineLog:
    """Receives what llama.cpp logs, from any of its threads.

    `report` takes lines worth a place in the worker's log: warnings and errors, or all.
    """

    def __init__(self, report: Callable[[str], None], *, verbose: bool) -> None:
        self._report = report
        self._lowest = 0 if verbose else WARN
        self._buffer = LogBuffer()
        self._lock = threading.Lock()
        self._callback: Any = None

    def install(self, lib: Any) -> None:
        """Take the place of the package's logger, which has the levels wrong."""
        # Kept, since the library goes on calling it.
        self._callback = lib.llama_log_callback(self._on_message)
        lib.llama_log_set(self._callback, None)

    def install_vision(self, lib: Any) -> None:
        """Listen to the part that reads images too; after `install`."""
        lib.mtmd_helper_log_set(self._callback, None)

    def clear(self) -> None:
        """Forget what was logged so far."""
        with self._lock:
            self._buffer.clear()

    def lines(self) -> Sequence[LogLine]:
        """Return the last lines."""
        with self._lock:
            return self._buffer.lines()

    def _on_message(self, level: int, text: bytes | None, _data: object) -> None:
        with self._lock:
            lines = self._buffer.feed(level, (text or b"").decode("utf-8", "replace"))
        for line in lines:
            if line.level >= self._lowest and EXPECTED not in line.text:
                self._report(f"llama.cpp: {line.text}")
