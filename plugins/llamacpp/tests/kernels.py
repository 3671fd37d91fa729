"""Kernels with this backend alone, and the home that they have in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plugins.llamacpp.tests.tiny_model import write_model
from tests.fakes import QUICK

import aiplayground_llamacpp.plugin as llamacpp

SERVICE = "llamacpp-backend"


def options(home: Path, **settings: Any) -> dict[str, Any]:
    """Return what a kernel is made with; `settings` are those that count here."""
    return {
        "home": home,
        "plugins": {SERVICE: llamacpp},
        "discover": False,
        "settings": {**QUICK, **settings},
        "environ": {},
    }


def home_with_model(folder: Path) -> Path:
    """Make a home in a folder, with the tiny model in it."""
    models = folder / "home" / "models"
    models.mkdir(parents=True)
    write_model(models / "tiny.gguf")
    return models.parent
