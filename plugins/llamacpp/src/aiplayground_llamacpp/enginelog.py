"""From llama.cpp's log to a cause and a next step: pure, and tested without an engine.

llama.cpp answers a failed load with a null pointer; what was wrong stands in its log alone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    InvalidModelFile,
    ServiceFailed,
)

# enum ggml_log_level; llama-cpp-python's own logger has warnings and errors one off.
DEBUG, INFO, WARN, ERROR, CONTINUE = 1, 2, 3, 4, 5

KEPT_LINES = 200
TOLD_LINES = 8


class LogLine(NamedTuple):
    """One line of the engine's log, without its end."""

    level: int
    text: str


class LogBuffer:
    """Puts the pieces that llama.cpp logs together to lines and keeps the last ones."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self._level, self._open = INFO, ""

    def feed(self, level: int, text: str) -> list[LogLine]:
        """Take in one message; return the lines that it completes."""
        if level != CONTINUE:
            self._level = level
        *whole, self._open = (self._open + text).split("\n")
        lines = [LogLine(self._level, line) for line in whole if line.strip(" .")]
        self._lines.extend(lines)
        return lines

    def clear(self) -> None:
        """Forget everything, before an action whose failure is to be explained."""
        self._lines.clear()

    def lines(self) -> Sequence[LogLine]:
        """Return what was kept, oldest first."""
        return tuple(self._lines)


class _Cause(NamedTuple):
    pattern: re.Pattern[str]
    failure: FailureClass
    message: str


def _cause(pattern: str, failure: FailureClass, message: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), failure, message)


_MEMORY_ADVICE = "Close other programs, set a smaller context_size, or use a smaller quantization."

_CAUSES = (
    _cause(
        r"bad_alloc|out of memory|failed to allocate|unable to allocate|cannot allocate"
        r"|insufficient memory|mmap failed|cudaMalloc failed|ErrorOutOfDeviceMemory",
        FailureClass.OUT_OF_MEMORY,
        "There is not enough memory for {name}. " + _MEMORY_ADVICE,
    ),
    _cause(
        r"unknown (model architecture|pre-tokenizer type)|unsupported model architecture"
        r"|unknown tokenizer",
        FailureClass.BAD_MODEL,
        "{name} is of a kind that the installed llama.cpp does not know ({line}). "
        "Update llama-cpp-python, or use another model.",
    ),
    _cause(
        r"not within the file bounds|corrupted or incomplete|invalid magic|invalid data"
        r"|failed to read|unexpected end|tensor data|missing tensor|tensor .+ not found|wrong shape"
        r"|key not found|wrong number of tensors",
        FailureClass.BAD_MODEL,
        "{name} is damaged or incomplete ({line}). Download it again.",
    ),
    _cause(
        r"no such file or directory|failed to open",
        FailureClass.MISSING_FILE,
        "{name} cannot be opened ({line}). Check the path and its permissions.",
    ),
)


def diagnose(lines: Iterable[LogLine], path: Path) -> AIPlaygroundError:
    """Say why a model did not load, from what the engine logged meanwhile."""
    told = [line.text.strip() for line in lines if line.level >= WARN]
    details: dict[str, object] = {"path": str(path), "log": told[-TOLD_LINES:]}
    for cause in _CAUSES:
        found = next((text for text in told if cause.pattern.search(text)), None)
        if found is not None:
            message = cause.message.format(name=path.name, line=_shorten(found))
            return _error(cause.failure, message, details)
    said = f" The engine said: {_shorten(told[0])}." if told else ""
    message = f"llama.cpp could not load {path.name}.{said} Try another model or update it."
    return _error(FailureClass.BAD_MODEL, message, details)


def out_of_memory(path: Path, needed: int, available: int) -> ServiceFailed:
    """Say that a context would not fit; both sizes are in bytes."""
    return ServiceFailed(
        f"There is not enough memory for {path.name} with this context: it needs "
        f"{needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free. {_MEMORY_ADVICE}",
        failure=FailureClass.OUT_OF_MEMORY,
        details={"path": str(path), "needed": needed, "available": available},
    )


def bad_model(path: Path, why: str) -> InvalidModelFile:
    """Say that a model cannot be used, in a sentence that follows its file's name."""
    details: dict[str, object] = {"path": str(path), "failure": FailureClass.BAD_MODEL.value}
    return InvalidModelFile(f"{path.name} {why}", details=details)


def _error(failure: FailureClass, message: str, details: dict[str, object]) -> AIPlaygroundError:
    if failure is FailureClass.OUT_OF_MEMORY:
        return ServiceFailed(message, failure=failure, details=details)
    return InvalidModelFile(message, details={**details, "failure": failure.value})


def _shorten(line: str, limit: int = 200) -> str:
    """Drop what leads a log line (a C++ function's name), and what is too long."""
    text = re.sub(r"^\w+: (error loading model: )?", "", line).rstrip(".")
    return text if len(text) <= limit else text[:limit] + "…"
