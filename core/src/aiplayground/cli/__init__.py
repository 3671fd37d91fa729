"""The command line `aipg`. Each command is a module of its own, imported when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run `aipg` with `args` (default: those of this process) and return the exit code."""
    args = sys.argv[1:] if args is None else list(args)
    if args == ["--version"]:
        # Scripts ask this often, and click alone takes longer to import than Python to start.
        from aiplayground import __version__

        sys.stdout.write(f"aipg {__version__}\n")
        return 0
    try:
        from .root import run_root
    except KeyboardInterrupt:
        return 130  # as `exits.INTERRUPTED`; nothing has begun that could be left behind

    return run_root(args)
