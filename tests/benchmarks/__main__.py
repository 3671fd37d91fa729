"""Run every measurement and print the table: `make bench`; `--write` puts it into docs/."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import psutil

from . import answer, dispatch, downloads, engine, gateway, models, startup
from .measure import Row, table

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PARTS = {
    "startup": startup,
    "dispatch": dispatch,
    "answer": answer,
    "engine": engine,
    "gateway": gateway,
    "downloads": downloads,
    "models": models,
}
ABOUT = """# Benchmarks

`make bench` measures these on your machine and prints the tables; `make bench ONLY=engine` measures
one part. A bar holds when the median is within it. Ratios are medians of alternated pairs; the
control is the peer timed against itself (the middle half of the ratios), and where its spread
exceeds the margin the verdict is *unresolved*. Rows of the engine say how many times the peer's
figure ours is, with 134 M parameters in Q8_0 on one thread and 48 tokens for each answer.
"""


def main() -> int:
    """Measure, print, and say by the exit status whether every bar holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone")
    arguments = parser.parse_args()
    found: dict[str, list[Row]] = {}
    for name in arguments.only or PARTS:
        found[name] = _measure(name)
        print("\n" + table(found[name]) + "\n", flush=True)
        if arguments.write:
            text = PAGE.read_text("utf-8") if PAGE.exists() else ""
            PAGE.write_text(page(text, {name: _section(found[name])}), "utf-8")
    missed = [row for rows in found.values() for row in rows if row.verdict == "missed"]
    return 1 if missed else 0


def _measure(name: str) -> list[Row]:
    rows = []
    for row in PARTS[name].rows():
        print(" | ".join(row.cells()), flush=True)
        rows.append(row)
    return rows


def _section(rows: list[Row]) -> str:
    machine = (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}"
    )
    return f"Measured on {machine}.\n\n{table(rows)}"


def page(present: str, sections: dict[str, str]) -> str:
    """Return the page with these sections in place of the ones it has by the same names."""
    known = dict(part.split("\n", 1) for part in present.split("\n## ")[1:])
    merged = {name: text.strip() for name, text in {**known, **sections}.items()}
    order = [name for name in PARTS if name in merged]
    return "\n".join([ABOUT, *(f"## {name}\n\n{merged[name]}\n" for name in order)])


if __name__ == "__main__":
    sys.exit(main())
