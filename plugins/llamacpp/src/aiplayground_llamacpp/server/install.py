"""The llama-server that was set up: where it is, and whether it is still what it was.

    DATA/llama-server/installed.json    written last: what counts, and under which folder
    DATA/llama-server/b11146-linux-x64-cpu/…

Everything here blocks.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from aiplayground.errors import FailureClass, FileOperationError, ServiceFailed

from .program import executable

FOLDER = "llama-server"
RECORD = "installed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What is installed: `folder` is relative to the folder of all, `size` the program's, bytes.

    `passed_over` are builds that were tried first and did not run here.
    """

    tag: str
    build: str
    folder: str
    version: str
    size: int
    passed_over: tuple[str, ...] = ()


def root(data: Path) -> Path:
    """Return the folder of all that setting up makes."""
    return data / FOLDER


def read(data: Path) -> Installed | None:
    """Return what is installed, or None. Raises `ServiceFailed` if it is there but broken."""
    record = root(data) / RECORD
    if not record.is_file():
        return None
    try:
        found = Installed(**json.loads(record.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _broken(f"{record} cannot be read ({error})") from error
    program = program_of(data, found)
    if not program.is_file() or program.stat().st_size != found.size:
        raise _broken(f"{program} is missing or was changed")
    return found


def installed_program(data: Path) -> Path | None:
    """Return the program that was set up, if any. Raises as `read` does."""
    found = read(data)
    return None if found is None else program_of(data, found)


def program_of(data: Path, installed: Installed) -> Path:
    """Return the program of an installation."""
    return root(data) / installed.folder / executable()


def write(data: Path, installed: Installed) -> None:
    """Make an installation count, in one step; others are removed."""
    folder = root(data)
    fresh = folder / (RECORD + ".new")
    fresh.write_text(json.dumps(asdict(installed), indent=2), "utf-8")
    fresh.replace(folder / RECORD)
    for each in folder.iterdir():
        if each.name not in (RECORD, installed.folder):
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def clear(data: Path) -> None:
    """Remove everything. Raises `FileOperationError` if that fails."""
    try:
        (root(data) / RECORD).unlink(missing_ok=True)
        if root(data).is_dir():
            shutil.rmtree(root(data))
    except OSError as error:
        raise FileOperationError(
            f"{root(data)} cannot be removed: {error.strerror or error}. Stop the service first."
        ) from error


def _broken(what: str) -> ServiceFailed:
    return ServiceFailed(
        f"The llama-server that was set up is broken: {what}. Set it up again: "
        "aipg setup llamacpp-backend.",
        failure=FailureClass.MISSING_FILE,
    )
