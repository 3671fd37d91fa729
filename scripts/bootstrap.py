"""Make the development environment `.venv`, from nothing or from whatever is there.

    python3 scripts/bootstrap.py

Uses uv where it is on PATH, else venv and pip. This file finds a Python and makes the
environment; `install.py`, run by that Python, fills it and writes `.venv/.ready` last: an
interrupted run never counts as done, and the next one goes on.

It runs on any Python from 3.8 on, so that an old one can say what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
READY = VENV / ".ready"

CLEANUP_TIMEOUT = 60
"""Seconds that an interrupted installation gets to end what it started."""

OLDEST = (3, 11)
TESTED = ("3.13", "3.12", "3.11")
"""What the tests run on, preferred first."""

HOW_TO_GET_PYTHON = """\
AI Playground needs Python 3.11, 3.12 or 3.13, and none was found.
  Debian, Ubuntu:  sudo apt install python3 python3-venv
  Fedora:          sudo dnf install python3.13
  macOS:           brew install python@3.13
  Windows:         winget install Python.Python.3.13
  anywhere:        install uv (https://docs.astral.sh/uv/); it brings a Python of its own
Then run the same command again. To choose one yourself: make PYTHON=/path/to/python3"""

HOW_TO_GET_VENV = """\
{python} cannot make virtual environments (its module ensurepip is missing).
  Debian, Ubuntu:  sudo apt install python3-venv
  anywhere:        install uv (https://docs.astral.sh/uv/)
Then run the same command again."""


def fail(message: str) -> NoReturn:
    """Say what is wrong and what to do, and stop."""
    sys.exit(f"\n{message}\n")


def say(message: str) -> None:
    """Tell the user what happens now."""
    print(f"· {message}", flush=True)


def run(command: list[str]) -> None:
    """Run a command with its output shown; stop if it fails."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        fail(f"This failed with status {status} (its output is above):\n  {' '.join(command)}")


def succeeds(command: list[str]) -> bool:
    """Whether a command can be run and answers with status 0."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def fits(python: str) -> bool:
    """Whether this is a Python that we can use. (A shim of pyenv may exist and not run.)"""
    return succeeds([python, "-c", f"import sys; sys.exit(sys.version_info < {OLDEST})"])


def find_python() -> str | None:
    """Return the Python to build on: the one that runs this if it fits, else one on PATH."""
    on_path = (shutil.which(f"python{version}") for version in TESTED)
    candidates = [sys.executable, *(found for found in on_path if found)]
    return next((python for python in candidates if fits(python)), None)


def venv_python() -> Path:
    """Return where the environment's Python is."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(uv: str | None) -> None:
    """Make `.venv` unless there is one whose Python runs and fits."""
    if venv_python().exists() and fits(str(venv_python())):
        return
    python = find_python()
    if python is None and uv is None:
        fail(HOW_TO_GET_PYTHON)
    remove_venv()
    if uv:
        say(f"Making .venv with uv, on {python or 'Python ' + TESTED[0]}")
        run([uv, "venv", "--quiet", "--python", python or TESTED[0], str(VENV)])
    elif python:
        if not succeeds([python, "-c", "import ensurepip, venv"]):
            fail(HOW_TO_GET_VENV.format(python=python))
        say(f"Making .venv on {python}")
        run([python, "-m", "venv", str(VENV)])


def remove_venv() -> None:
    """Remove what an interrupted run, or a Python that is gone, left behind."""
    if not VENV.is_dir():
        return
    ours = (VENV / "pyvenv.cfg").exists() or not any(VENV.iterdir())
    if VENV.is_symlink() or not ours:
        fail(f"{VENV} is no virtual environment. Move it away, then run the same command again.")
    say("Removing .venv: it is half-made, or its Python is gone or too old")
    shutil.rmtree(str(VENV))


def fill_venv() -> int:
    """Run `install.py` and return its status; an interrupt reaches it too, and it cleans up."""
    process = subprocess.Popen([str(venv_python()), "-m", "scripts.install"], cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait(timeout=CLEANUP_TIMEOUT)
        raise


def main() -> None:
    """Make `.venv`, then let its own Python fill it."""
    try:
        if READY.exists():
            READY.unlink()
        make_venv(shutil.which("uv"))
        sys.exit(fill_venv())
    except KeyboardInterrupt:
        fail("Interrupted. Nothing is lost: run the same command again to go on.")


if __name__ == "__main__":
    main()
