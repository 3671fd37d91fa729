"""How long a person waits for the first word, with nothing running before."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .measure import Row, figure

ROUNDS = 9


def rows() -> Iterator[Row]:
    """Measure."""
    first, whole = [], []
    for _ in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as home:
            a, b = _chat(home)
        first.append(a)
        whole.append(b)
    yield figure('`aipg chat -m guide "Hello"`: first token', first[1:], "s", 3)
    yield figure('`aipg chat -m guide "Hello"`: whole command', whole[1:], "s")


def _chat(home: str) -> tuple[float, float]:
    aipg = str(Path(sys.executable).with_name("aipg"))
    began = time.perf_counter()
    with subprocess.Popen(
        [aipg, "--home", home, "chat", "-m", "guide", "Hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        text = os.read(process.stdout.fileno(), 1)
        first = time.perf_counter() - began
        text += process.stdout.read()
    assert process.returncode == 0, text
    assert text.strip(), "no answer"
    return first, time.perf_counter() - began
