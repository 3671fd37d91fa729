"""The guide's only hook. The file lies next to this module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aiplayground.hookspecs import hookimpl

GUIDE = Path(__file__).with_name("guide.gguf")
"""The model file; models are called after their file, so this one is ``guide``."""

AIPG_HOOK_API = 1


@hookimpl
def model_files() -> Sequence[Path]:
    """Return the guide's model file."""
    return (GUIDE,)
