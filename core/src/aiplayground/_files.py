"""The files that the IPC API touches: pictures, in declared folders alone."""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from .errors import FileOperationError, InvalidParameters, ServiceNotAvailable
from .paths import file_error, make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN_PATIENCE = 5.0
"""Seconds in which the system's opener must have failed, if it fails; it may be the viewer itself
and stay."""

MAX_NAME = 200
"""Bytes of a file's name; file systems take 255, and a number may be added."""

MAX_TRIES = 10_000
"""Numbers that are tried for a name that is taken."""

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)?(;[^,;]*)*,", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_HEAD = 32

SUFFIXES = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "gif": (".gif",),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
}
"""The kinds of pictures, and how their files end."""


def kind_of(head: bytes) -> str | None:
    """Return the kind of picture that a file's first bytes show; None for anything else."""
    starts = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpeg",
        b"GIF87a": "gif",
        b"GIF89a": "gif",
        b"BM": "bmp",
        b"II*\x00": "tiff",
        b"MM\x00*": "tiff",
    }
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return "avif" if head[4:12] == b"ftypavif" else None


def decode_image(text: str, limit: int) -> bytes:
    """Return the picture in base64 or in a data URL, of at most `limit` bytes.

    Raises `InvalidParameters`. Source: RFC 2397 (data URLs), RFC 4648 (base64).
    """
    if text[:5].lower() == "data:":
        text = _payload(text)
    if len(text) > limit * 4 // 3 + 1024:
        raise _too_large(limit)
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"it is not base64 ({error})") from error
    if len(data) > limit:
        raise _too_large(limit)
    if kind_of(data[:_HEAD]) is None:
        raise _refused(f"it is none of {', '.join(SUFFIXES)}")
    return data


def _payload(url: str) -> str:
    match = _DATA_URL.match(url[:256])
    if match is None or not match[0].lower().endswith(";base64,"):
        raise _refused("it must be a data URL in base64: data:image/png;base64,…")
    if not (match[1] or "").lower().startswith("image/"):
        raise _refused("the type of its data URL is not that of a picture")
    return url[match.end() :]


def checked_name(name: str, kind: str) -> str:
    """Return a name for a file of this kind; its ending is added where it is not a picture's.

    Raises `InvalidParameters` for a name that is a path or that no file can have.
    """
    plain = name.strip()
    wrong = (
        not plain
        or plain.startswith(".")
        or plain.endswith(".")
        or _FORBIDDEN.search(plain) is not None
        or _RESERVED.fullmatch(plain) is not None
        or len(plain.encode("utf-8", "replace")) > MAX_NAME
    )
    if wrong:
        raise InvalidParameters(
            "'filename' must be a plain name such as 'picture.png': no folders, no leading dot, "
            f'none of <>:"/\\|?*, at most {MAX_NAME} bytes.',
            details={"field": "filename"},
        )
    known = {suffix for each in SUFFIXES.values() for suffix in each}
    return plain if Path(plain).suffix.lower() in known else plain + SUFFIXES[kind][0]


def save_image(folder: Path, text: str, name: str, limit: int) -> Path:
    """Write a picture into a folder under a name that is free. Blocks.

    Raises `InvalidParameters` and `FileOperationError`.
    """
    data = decode_image(text, limit)
    wanted = checked_name(name, kind_of(data[:_HEAD]) or "png")
    make_folder(folder)
    try:
        return _write_new(folder.resolve(), wanted, data)
    except OSError as error:
        raise file_error("write", folder / wanted, error) from error


def _write_new(folder: Path, name: str, data: bytes) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(MAX_TRIES):
        path = folder / (f"{stem}-{number}{suffix}" if number else name)
        try:
            # Exclusive: neither a file nor a link of that name is ever written through.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o644)
        except FileExistsError:
            continue
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileOperationError(
        f"{folder} has {MAX_TRIES} files called {name} already. Choose another name.",
        details={"path": str(folder / name)},
    )


_BINARY: int = getattr(os, "O_BINARY", 0)


def confined(path: str, roots: Sequence[Path]) -> Path:
    """Return the existing file that a path means, links followed, if it lies in one of the roots.

    A relative path is looked for in each of them. Raises `FileOperationError`; what lies outside is
    answered in the same way whether it exists or not.
    """
    if not path or "\x00" in path:
        raise InvalidParameters("'path' must name a file.", details={"field": "path"})
    for root in roots:
        try:
            base = root.resolve()
            found = (base / path).resolve()
        except (OSError, RuntimeError):
            continue  # a root that is not there, or a loop of links
        if found.is_relative_to(base) and found.is_file():
            return found
    listed = ", ".join(map(str, roots))
    raise FileOperationError(
        f"There is no such file in the folders whose files may be opened: {listed}. The setting "
        f"'files.folders' adds others.",
        details={"path": path, "reason": "outside"},
    )


class Opener:
    """Opens pictures with the program that the system has for them.

    What stays open is the user's: it is not ended with the kernel.
    """

    def __init__(self) -> None:
        self._open: list[subprocess.Popen[bytes]] = []

    def open(self, path: Path) -> None:
        """Open a picture. Blocks for `OPEN_PATIENCE` at most.

        Raises `FileOperationError` if it is none, `ServiceNotAvailable` if nothing opens it.
        """
        try:
            with path.open("rb") as file:
                kind = kind_of(file.read(_HEAD))
        except OSError as error:
            raise file_error("read", path, error) from error
        if kind is None or path.suffix.lower() not in SUFFIXES[kind]:
            # The system goes by the ending or by the content: both must say "picture".
            raise FileOperationError(
                f"{path.name} is no picture, or its ending is that of another kind.",
                details={"path": str(path)},
            )
        if sys.platform == "win32":  # pragma: no cover
            os.startfile(path)
            return
        self._run(path)

    def _run(self, path: Path) -> None:
        self._open = [each for each in self._open if each.poll() is None]
        program = which("open" if sys.platform == "darwin" else "xdg-open")
        if program is None:
            raise ServiceNotAvailable(
                "Nothing here opens pictures: xdg-open is not installed (package xdg-utils).",
                details={"program": "xdg-open"},
            )
        try:
            child = subprocess.Popen(
                [program, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise file_error("run", Path(program), error) from error
        try:
            code = child.wait(OPEN_PATIENCE)
        except subprocess.TimeoutExpired:
            self._open.append(child)  # the viewer itself; looked after at the next call
            return
        if code != 0:
            raise ServiceNotAvailable(
                f"{program} could not open the picture (exit code {code}). Is there a screen?",
                details={"program": program, "exit_code": code},
            )

    def close(self) -> None:
        """Leave what is still open to the user."""
        for child in self._open:
            if child.poll() is None:
                child.returncode = 0  # it lives on, and is not ours to wait for
        self._open.clear()


def _refused(why: str) -> InvalidParameters:
    return InvalidParameters(f"'imageData' is no picture: {why}.", details={"field": "imageData"})


def _too_large(limit: int) -> InvalidParameters:
    return InvalidParameters(
        f"The picture is larger than {limit // 2**20} MiB. The setting 'files.max_image' is the "
        f"limit.",
        details={"field": "imageData", "reason": "too-large"},
    )
