"""What our engine is measured against: llama.cpp's own server, and that of llama-cpp-python."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from scripts import llama_server as made

HOW = """\
There is no llama-server to measure against. Either name one, of the llama.cpp version that is
inside the llama-cpp-python in use:  AIPG_LLAMA_SERVER=/path/to/llama-server make bench
or have one compiled, once:  python -m scripts.llama_server"""

PYTHON_SERVER = ("fastapi", "sse_starlette", "starlette_context", "pydantic_settings")
HOW_PYTHON = """\
llama_cpp.server is not measured: it needs packages that this project does not use. To have it:
  pip install 'llama-cpp-python[server]'"""


def find_llama_server() -> Path | None:
    """Return the llama-server to measure against: named or compiled; None if there is none."""
    return made.given() or made.cached()


def llama_server(program: Path, model: Path, slots: int) -> list[str]:
    """Return the command line of llama.cpp's server: one thread, slots of 1,024 tokens."""
    return [
        str(program), "--model", str(model), "--host", "127.0.0.1", "--port", "{port}",
        "-np", str(slots), "-c", str(slots * 1024), "-t", "1", "-tb", "1", "--no-webui",
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
