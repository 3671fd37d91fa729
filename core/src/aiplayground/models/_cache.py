"""What was read of models' files, kept on the disk from one process to the next.

One JSON file. It can always be made again: one that is damaged, of another version or too large is
ignored and written anew.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, NamedTuple

from ._facts import Facts
from ._found import FoundFile
from ._types import ModelProblem

VERSION = 1
"""Of what the readers make of a file: raise it when they see more, or otherwise."""

MAX_ENTRIES = 20_000
MAX_BYTES = 64 << 20

_LAYOUT = [VERSION, *(field.name for field in fields(Facts))]
_TYPES: tuple[Any, ...] = (
    str, str, int, (str, type(None)), (int, type(None)), bool, (str, type(None)),
    (int, type(None)), bool, int, int, int, (int, type(None)),
)  # fmt: skip


class Key(NamedTuple):
    """What a file is known by: any change of it changes one of these."""

    path: str
    size: int
    mtime_ns: int
    inode: int


Known = dict[Key, Facts | ModelProblem]


def key_of(file: FoundFile) -> Key:
    """Return what a found file is known by."""
    return Key(file.text, file.size, file.mtime_ns, file.inode)


def load(path: Path) -> Known:
    """Read what is known; empty where there is nothing, or nothing that can be used."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        body = json.loads(data) if len(data) <= MAX_BYTES else None
        return dict(_entries(body))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}  # it is written anew


def _entries(body: Any) -> Iterator[tuple[Key, Facts | ModelProblem]]:
    if not isinstance(body, dict) or body.get("layout") != _LAYOUT:
        return
    for path, size, mtime, inode, value in body["files"]:
        if not (type(size) is type(mtime) is type(inode) is int):
            raise TypeError(path)
        yield Key(path, size, mtime, inode), _value(Path(path), value)


def _value(path: Path, value: list[Any]) -> Facts | ModelProblem:
    if len(value) == 2:
        reason, message = value
        if not (isinstance(reason, str) and isinstance(message, str)):
            raise TypeError(reason)
        return ModelProblem(path, reason, message)
    # A bool is an int, too: what is wrong in that way harms nothing.
    if not all(map(isinstance, value, _TYPES)) or len(value) != len(_TYPES):
        raise TypeError(value)
    return Facts(*value)


def store(path: Path, known: Mapping[Key, Facts | ModelProblem], newest: Iterable[Key]) -> None:
    """Write what is known, at once or not at all; those seen last stay where it grows too large.

    Raises `OSError`.
    """
    keys = list(dict.fromkeys([*newest, *known]))[:MAX_ENTRIES]
    files = [[*key, _plain(known[key])] for key in keys if key in known]
    text = json.dumps({"layout": _LAYOUT, "files": files}, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _plain(value: Facts | ModelProblem) -> tuple[Any, ...]:
    if isinstance(value, ModelProblem):
        return (value.reason, value.message)
    return astuple(value)
