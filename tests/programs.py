"""Programs that tests need and that may not be here."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "plugins/guide/src/aiplayground_guide/guide.gguf"


def llama_server() -> str:
    """Return the path of a llama-server: the one that is named, or compiled for the tests."""
    named = os.environ.get("AIPG_LLAMA_SERVER")
    if named:
        assert Path(named).is_file(), f"AIPG_LLAMA_SERVER names {named}, which is not there"
        return named
    try:
        cached = importlib.import_module("scripts.llama_server").cached()
    except ImportError:
        cached = None
    if cached is None:
        pytest.skip("there is no llama-server: name one in AIPG_LLAMA_SERVER")
    return str(cached)
