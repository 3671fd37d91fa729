"""From an exit code and the last lines of a log to a cause and a next step: a pure function.

A worker of ours says itself what went wrong, in one line that starts with `ERROR_PREFIX`; for
other programs the words of their log decide, then the way they ended.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from .errors import FailureClass, ServiceFailed, from_dict
from .serving.protocol import ERROR_PREFIX

KILLED = -9
"""The exit code of SIGKILL; Windows has no such name in `signal`."""

LAST_LINES = 20
"""How many lines of a log an error carries."""

LINE_SHOWN = 300
"""How many characters of the line that gave the cause away its message has."""


class _Cause(NamedTuple):
    pattern: re.Pattern[str]
    failure: FailureClass
    message: str


def _cause(pattern: str, failure: FailureClass, message: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), failure, message)


_CAUSES = (
    _cause(
        r"out of memory|failed to allocate|cannot allocate|bad_alloc|MemoryError"
        r"|cannot meet free memory|unable to allocate",
        FailureClass.OUT_OF_MEMORY,
        "there is not enough memory. Use a smaller model or quantization, or a smaller context.",
    ),
    _cause(
        r"address already in use|EADDRINUSE|couldn't bind|only one usage of each socket",
        FailureClass.PORT_TAKEN,
        "its port is taken by another program. Stop that program or set another port.",
    ),
    _cause(
        r"error while loading shared libraries|cannot open shared object file"
        r"|Library not loaded|DLL load failed|image not found",
        FailureClass.MISSING_LIBRARY,
        "a shared library is missing. Install it or set the engine up again.",
    ),
    _cause(
        r"ModuleNotFoundError|No module named|ImportError",
        FailureClass.MISSING_LIBRARY,
        "a Python package is missing. Set the engine up again.",
    ),
    _cause(
        r"invalid magic|not a gguf|corrupted or incomplete|unknown model architecture"
        r"|failed to load model|error loading model",
        FailureClass.BAD_MODEL,
        "the model file is damaged or of an unknown kind. Download it again or use another.",
    ),
    _cause(
        r"No such file or directory|FileNotFoundError|cannot find the (file|path)",
        FailureClass.MISSING_FILE,
        "a file is missing. Check the paths in the settings.",
    ),
)


def describe_exit(returncode: int) -> str:
    """Say in words how a process ended; a negative code is the number of a signal."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was ended by {name}"


def classify(service: str, worker: str, returncode: int, lines: Sequence[str]) -> ServiceFailed:
    """Turn the end of a process into an error with a cause and a next step."""
    last = [line for line in lines if line.strip()][-LAST_LINES:]
    details = {"service": service, "worker": worker, "exitCode": returncode, "log": last}
    told = next((line for line in reversed(last) if line.startswith(ERROR_PREFIX)), None)
    if told is not None:
        return _as_told(service, told, details)
    # A program that was killed did not say why: an older line would only mislead.
    causes = _CAUSES[:1] if returncode == KILLED else _CAUSES
    for cause in causes:
        said = next((line for line in reversed(last) if cause.pattern.search(line)), None)
        if said is not None:
            return ServiceFailed(
                f"{service}: {worker} {describe_exit(returncode)}: {cause.message} "
                f"It said: {said.strip()[:LINE_SHOWN]}",
                failure=cause.failure,
                details=details,
            )
    return _by_exit_code(service, worker, returncode, details)


def _as_told(service: str, line: str, details: dict[str, object]) -> ServiceFailed:
    try:
        told = from_dict(json.loads(line.removeprefix(ERROR_PREFIX)))
    except (ValueError, TypeError, AttributeError):
        return ServiceFailed(f"{service}: {line}", failure=FailureClass.EXIT, details=details)
    failure = told.failure if isinstance(told, ServiceFailed) else FailureClass.EXIT
    return ServiceFailed(
        f"{service}: {told.message}", failure=failure, details={**told.details, **details}
    )


def _by_exit_code(
    service: str, worker: str, returncode: int, details: dict[str, object]
) -> ServiceFailed:
    how = f"{service}: {worker} {describe_exit(returncode)}"
    if returncode == KILLED:
        return ServiceFailed(
            f"{how}: the system or a person killed it, often because memory ran out. "
            f"Free memory or use a smaller model, then try again.",
            failure=FailureClass.CRASH,
            details=details,
        )
    if returncode < 0:
        return ServiceFailed(
            f"{how}: the engine crashed. Its log has the last words; another model or other "
            f"engine settings may help.",
            failure=FailureClass.CRASH,
            details=details,
        )
    if returncode in (126, 127):
        return ServiceFailed(
            f"{how}: the program was not found or cannot be run. Set the engine up again.",
            failure=FailureClass.MISSING_FILE,
            details=details,
        )
    return ServiceFailed(
        f"{how} before it was asked to. Its log says more: `aipg doctor` shows where it is.",
        failure=FailureClass.EXIT,
        details=details,
    )
