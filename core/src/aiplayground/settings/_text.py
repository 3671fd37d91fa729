"""Keys and values of settings as text: how they are typed, and where they stand in a TOML file.

A key is a path, `("residency", "idle_timeout")`. The format is TOML 1.0 (toml.io).
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from aiplayground.errors import InvalidSettings
from aiplayground.paths import file_error

from ._models import service_key

Key = tuple[str, ...]

ENVIRONMENT_PREFIX = "AIPG_"
BY_SERVICE = ("services", "attach")
"""Tables whose keys are names of services."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LITERALS = (bool, int, float, list, dict)
_POSITION = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


def split_key(text: str) -> Key:
    """Split `services.llamacpp-backend.port`, as TOML does. Raises `InvalidSettings`."""
    key = _written(text)
    if not key:
        message = f"{text!r} is no key. Write it like 'residency.idle_timeout'."
        raise InvalidSettings(message, details={"key": text})
    return key


def canonical(key: Key) -> Key:
    """Return the key with a service's name in the one spelling that settings use."""
    if len(key) > 1 and key[0] in BY_SERVICE:
        return (key[0], service_key(key[1]), *key[2:])
    return key


def dotted(key: Key) -> str:
    """Write a key as a person types it."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in key)


def variable_of(key: Key) -> str:
    """Return the environment variable that sets a key."""
    return ENVIRONMENT_PREFIX + "__".join(part.replace("-", "_").upper() for part in key)


def parse_value(text: str) -> Any:
    """Read a value that was typed: a TOML number, boolean, list, table or quoted text, else text.

    Dates stay text, since no setting is one.
    """
    try:
        table = tomllib.loads(f"v = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table.pop("v", text)
    quoted = text.lstrip().startswith(("'", '"'))
    return value if not table and (quoted or isinstance(value, _LITERALS)) else text


def read_text(path: Path) -> str:
    """Read a settings file; `""` if there is none."""
    try:
        # Editors on Windows put a byte order mark in front.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise InvalidSettings(message, details={"path": str(path)}) from error
    except OSError as error:
        raise file_error("read the settings file", path, error) from error


def parse_file(path: Path, text: str) -> dict[str, Any]:
    """Parse a file's text. Raises `InvalidSettings` with line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _POSITION.search(message)
        lines = text.splitlines() or [""]
        line, column = map(int, found.groups()) if found else (len(lines), len(lines[-1]) + 1)
        cause = message[: found.start()] if found else message
        raise InvalidSettings(
            f"{path}, line {line}, column {column}: this is not TOML: {cause}. Mend that line, "
            "or move the file away to go back to the defaults.",
            details={"path": str(path), "line": line, "column": column},
        ) from error


def line_of(text: str, key: Key) -> int | None:
    """Return the line where a key, or the nearest table above it, is written.

    A scan by line, made only when a message needs it: multi-line values may hide a key, never
    move one to a line where it is not written.
    """
    table: Key = ()
    found: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        head, _, _ = line.partition("#")
        if head.lstrip().startswith("["):
            here = table = _written(head.strip().strip("[]"))
        else:
            left, equals, _ = line.partition("=")
            here = (*table, *_written(left.strip())) if equals else ()
        depth = len(here)
        if depth and here == key[:depth] and (found is None or depth > found[0]):
            found = (depth, number)
    return found[1] if found else None


def _written(text: str) -> Key:
    """Return the key that a piece of TOML writes; empty if it writes none."""
    if "=" in text or "\n" in text:
        return ()
    try:
        current: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(current, dict):
        part, current = next(iter(current.items()))
        parts.append(part)
    return canonical(tuple(parts))
