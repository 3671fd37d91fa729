"""The package of a new plugin, written from templates (`aipg plugin new`).

Templates are `string.Template` texts in `templates/`. Everything is rendered before anything is
written, and what was written is taken back when writing fails.
"""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources, util
from pathlib import Path
from string import Template

from aiplayground import __version__
from aiplayground.errors import FileOperationError, InvalidParameters
from aiplayground.hookspecs import HOOK_API
from aiplayground.paths import file_error

MAX_NAME = 64
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SEPARATORS = re.compile(r"[-_.]+")


class Kind(StrEnum):
    """The two ways to write a backend."""

    PYTHON = "python"
    MANIFEST = "manifest"


FILES: Mapping[Kind, Mapping[str, str]] = {
    Kind.PYTHON: {
        "pyproject.toml": "pyproject.toml",
        "readme.md": "README.md",
        "ignore": ".gitignore",
        "init.py": "src/$package/__init__.py",
        "typed": "src/$package/py.typed",
        "plugin.py": "src/$package/plugin.py",
        "settings.py": "src/$package/settings.py",
        "engine.py": "src/$package/engine.py",
        "worker.py": "src/$package/worker.py",
        "conformance.py": "tests/test_conformance.py",
    },
    Kind.MANIFEST: {
        "pyproject.toml": "pyproject.toml",
        "readme.md": "README.md",
        "ignore": ".gitignore",
        "init.py": "src/$package/__init__.py",
        "manifest.toml": "src/$package/aiplayground.toml",
        "conformance.py": "tests/test_conformance.py",
    },
}
"""For each kind, which template becomes which file."""


@dataclass(frozen=True, slots=True)
class Package:
    """What was written; `files` are relative to `folder`, `model` is the one that it serves."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    model: str


def write_package(
    name: str, directory: Path | None, *, kind: Kind, taken: Collection[str] = ()
) -> Package:
    """Write a plugin's package into a folder that is new or empty (default: `name`).

    `taken` are the names of plugins that are there already. Raises `InvalidParameters` for a name
    that cannot be used, `FileOperationError` when the folder cannot; nothing is written then.
    """
    name = checked_name(name, taken)
    folder = (directory or Path(name)).expanduser().absolute()
    _check_folder(folder)
    texts = render(name, kind)
    try:
        _write(folder, texts)
    except OSError as error:
        raise file_error("write the plugin's files", folder, error) from error
    return Package(name, folder, tuple(map(Path, sorted(texts))), model_of(name))


def checked_name(name: str, taken: Collection[str] = ()) -> str:
    """Return the name as packages spell it (PEP 503). Raises `InvalidParameters`."""
    normal = _SEPARATORS.sub("-", name).lower()
    why = _objection(normal, taken)
    if why is None:
        return normal
    raise InvalidParameters(
        f"'{name}' cannot be the name of a plugin: {why}", details={"name": name}
    )


def _objection(name: str, taken: Collection[str]) -> str | None:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        return (
            f"use at most {MAX_NAME} letters (a to z), digits and '-', beginning with a letter, "
            f"for instance my-backend."
        )
    if name in taken:
        return "a plugin of this name is installed. Choose another."
    package = package_of(name)
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        return f"'{package}' means something in Python. Choose another, for instance my-{name}."
    if name == "kernel" or util.find_spec(package) is not None:
        return f"there is a module '{package}' here already. Choose another, or uninstall that."
    return None


def package_of(name: str) -> str:
    """Return the import name of a distribution."""
    return name.replace("-", "_")


def model_of(name: str) -> str:
    """Return the name of the model that the generated backend serves."""
    return f"{name}-echo"


def render(name: str, kind: Kind) -> dict[str, str]:
    """Return the text of every file by its path, with `/` between the parts."""
    values = {
        "name": name,
        "package": package_of(name),
        "title": name.replace("-", " ").title(),
        "model": model_of(name),
        "hook_api": str(HOOK_API),
        "kernel": compatible(__version__),
    }
    templates = resources.files(__name__) / "templates" / kind.value
    found = {}
    for template, file in FILES[kind].items():
        text = (templates / f"{template}.tmpl").read_text(encoding="utf-8")
        found[Template(file).substitute(values)] = Template(text).substitute(values)
    return found


def compatible(version: str) -> str:
    """Return the range of versions that keep what this one promises: `>=0.1,<0.2`."""
    major, minor = map(int, version.split(".")[:2])
    after = f"0.{minor + 1}" if major == 0 else str(major + 1)
    return f">={major}.{minor},<{after}"


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise FileOperationError(
            f"{folder} {what}. Name a folder that is new or empty with --directory.",
            details={"path": str(folder)},
        )


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write into a folder beside it first: what appears in `folder` is whole."""
    existed = folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as staging:
        for name, text in texts.items():
            file = Path(staging, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        try:
            folder.mkdir(exist_ok=True)
            for child in sorted(Path(staging).iterdir()):
                child.rename(folder / child.name)
        except BaseException:
            _take_back(folder, texts, keep=existed)
            raise


def _take_back(folder: Path, texts: Mapping[str, str], *, keep: bool) -> None:
    for name in {Path(name).parts[0] for name in texts}:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not keep and folder.exists():
        folder.rmdir()
