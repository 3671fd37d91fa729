"""Where other programs keep their models, so that these can be used where they lie.

Sources: the environment variables of huggingface_hub (`HF_HUB_CACHE`, `HF_HOME`); LM Studio's
models folder, which its settings can move; `OLLAMA_MODELS` and the default of Ollama's service.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

MAX_SETTINGS = 1 << 20
"""Bytes of another program's settings that are read at most."""


def _home(environ: Mapping[str, str]) -> Path:
    named = environ.get("HOME") or environ.get("USERPROFILE")
    return Path(named) if named else Path.home()


def _huggingface(environ: Mapping[str, str]) -> list[Path]:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return [Path(environ[name]).expanduser()]
    if environ.get("HF_HOME"):
        return [Path(environ["HF_HOME"]).expanduser() / "hub"]
    caches = environ.get("XDG_CACHE_HOME")
    cache = Path(caches).expanduser() if caches else _home(environ) / ".cache"
    return [cache / "huggingface" / "hub"]


def _lm_studio(environ: Mapping[str, str]) -> list[Path]:
    home = _home(environ)
    pointed = _text(home / ".lmstudio-home-pointer").strip()
    bases = [Path(pointed)] if pointed else []
    bases += [home / ".lmstudio", home / ".cache" / "lm-studio"]
    moved = (_moved(base / "settings.json") for base in bases)
    return [*(folder for folder in moved if folder), *(base / "models" for base in bases)]


def _ollama(environ: Mapping[str, str]) -> list[Path]:
    if environ.get("OLLAMA_MODELS"):
        return [Path(environ["OLLAMA_MODELS"]).expanduser()]
    return [_home(environ) / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


PROGRAMS: Mapping[str, Callable[[Mapping[str, str]], list[Path]]] = MappingProxyType(
    {"huggingface": _huggingface, "lm-studio": _lm_studio, "ollama": _ollama}
)
"""The programs whose folders are known, by the name that the setting `models.external` takes."""


def external_folders(entry: str, environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that an entry of `models.external` means: a program's, or a path."""
    places = PROGRAMS.get(entry)
    found = places(environ) if places else [Path(entry).expanduser()]
    return [folder.absolute() for folder in dict.fromkeys(found)]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SETTINGS).decode("utf-8", "replace")
    except OSError:
        return ""  # that program is not installed, or keeps its settings elsewhere


def _moved(settings: Path) -> Path | None:
    try:
        folder = json.loads(_text(settings) or "{}").get("downloadsFolder")
    except (ValueError, AttributeError):
        return None
    return Path(folder) if isinstance(folder, str) and folder else None
