"""Reading a manifest: everything that is wrong with it is told at once, each with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path

from aiplayground.errors import PluginError

from ._backend import ManifestBackend
from ._check import Table
from ._parts import read_manifest

MAX_SIZE = 64 * 1024
"""Bytes of a manifest at most: they are read at each start of any kernel."""


class InvalidManifest(PluginError):
    """A manifest is wrong; the message names file, line and what was meant, for each problem."""


def load_manifest(path: Path | str) -> ManifestBackend:
    """Read a manifest and return the plugin that it describes, for `Kernel(plugins={...})`.

    Raises `InvalidManifest`.
    """
    file = Path(path).expanduser().absolute()
    text = _text(file)
    top = Table(file, text, _parsed(file, text))
    manifest = read_manifest(top)
    if manifest is None or top.problems:
        raise InvalidManifest("\n".join(top.problems), details={"problems": list(top.problems)})
    return ManifestBackend(manifest)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_SIZE + 1)
    except OSError as error:
        raise InvalidManifest(f"{file} cannot be read: {error.strerror or error}.") from error
    if len(data) > MAX_SIZE:
        raise InvalidManifest(f"{file} is larger than a manifest may be ({MAX_SIZE} bytes).")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise InvalidManifest(message) from error


def _parsed(file: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Imported here: finding the place costs pydantic, reading a good file must not.
        from aiplayground.errors import InvalidSettings
        from aiplayground.settings._text import parse_file

        try:
            parse_file(file, text)
        except InvalidSettings as placed:
            message = placed.message.partition(" Mend that line")[0]
            raise InvalidManifest(message, details=placed.details) from error
        raise
