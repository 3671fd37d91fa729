"""Run every measurement and print the table: `make bench`; `--write` puts it into docs/."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import psutil

from . import answer, dispatch, gateway, startup
from .measure import Row, table

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
ABOUT = """# Benchmarks

`make bench` measures these on your machine and prints the table; this one is from
{machine}. A bar holds when the median is within it. Ratios are medians of alternated pairs; the
control is the peer timed against itself, and where its spread exceeds the margin the verdict is
*unresolved*.
"""


def main() -> int:
    """Measure, print, and say by the exit status whether every bar holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    found: list[Row] = []
    for module in (startup, dispatch, answer, gateway):
        for row in module.rows():
            print(" | ".join(row.cells()), flush=True)
            found.append(row)
    print("\n" + table(found))
    if arguments.write:
        machine = (
            f"{psutil.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
            f"Python {platform.python_version()}"
        )
        PAGE.write_text(ABOUT.format(machine=machine) + "\n" + table(found) + "\n")
    return 1 if any(row.verdict == "missed" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
