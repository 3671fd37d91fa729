"""The bindings come without the package around them, which is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

CODE = """
import sys
from aiplayground_llamacpp.bindings import load_bindings
functions = load_bindings()
assert "numpy" not in sys.modules, "the package's own __init__ ran"
from llama_cpp import Llama
import llama_cpp
assert llama_cpp.llama_cpp is functions
assert not hasattr(llama_cpp, "no_such_name")
"""


def test_the_package_runs_when_something_of_it_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
