"""Programs that tests need and that may not be here."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import llama_server as made

GUIDE = Path(__file__).parents[1] / "plugins/guide/src/aiplayground_guide/guide.gguf"


def llama_server() -> str:
    """Return the path of a llama-server: the one that is named, or compiled for the tests."""
    found = made.given() or made.cached()
    if found is None:
        pytest.skip("there is no llama-server: make llama-server")
    return str(found)
