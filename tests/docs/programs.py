"""The programs that pages print, run as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def output_of(source: str, home: Path) -> str:
    """Run a program with a home of its own; it must end well, without a warning or a complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env={**os.environ, "AIPG_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
