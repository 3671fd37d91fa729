"""What our engine is measured against: llama.cpp's own server, and that of llama-cpp-python."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

VARIABLE = "AIPG_LLAMA_SERVER"
HOW = f"""\
There is no llama-server to measure against. Either name one, of the llama.cpp version that is
inside the llama-cpp-python in use:  {VARIABLE}=/path/to/llama-server make bench
or have one compiled, once:  python -m scripts.llama_server"""

PYTHON_SERVER = ("fastapi", "sse_starlette", "starlette_context", "pydantic_settings")
HOW_PYTHON = """\
llama_cpp.server is not measured: it needs packages that this project does not use. To have it:
  pip install 'llama-cpp-python[server]'"""


def find_llama_server() -> Path | None:
    """Return the llama-server to measure against; None if there is none.

    It is the one that `AIPG_LLAMA_SERVER` names, else the one that `scripts/llama_server.py` made.
    """
    named = os.environ.get(VARIABLE)
    if named:
        program = Path(named).expanduser()
        if not os.access(program, os.X_OK):
            _fail(f"{VARIABLE} names {program}, which is no program. Correct it, or unset it.")
        return program
    if importlib.util.find_spec("scripts.llama_server") is None:
        return None
    made: Path | None = importlib.import_module("scripts.llama_server").cached()
    return made


def llama_server(program: Path, model: Path, slots: int) -> list[str]:
    """Return the command line of llama.cpp's server: one thread, as many slots as ours."""
    return [
        str(program), "--model", str(model), "--host", "127.0.0.1", "--port", "{port}",
        "-np", str(slots), "-c", "8192", "-t", "1", "-tb", "1", "--no-webui",
    ]  # fmt: skip


def has_python_server() -> bool:
    """Say whether `python -m llama_cpp.server` can run here."""
    return all(map(importlib.util.find_spec, PYTHON_SERVER))


def python_server(model: Path) -> list[str]:
    """Return the command line of llama-cpp-python's server; it answers one after the other."""
    return [
        sys.executable, "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", "{port}",
        "--model", str(model), "--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "8192",
        "--interrupt_requests", "False",
    ]  # fmt: skip


def _fail(why: str) -> NoReturn:
    sys.exit(why)
