"""What commands print: JSON, tables, figures for people. rich is imported when a table needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

import click

GAP = "  "


def colour() -> bool | None:
    """Return what click's `color` argument should be: False where the user wants none."""
    return False if os.environ.get("NO_COLOR") else None


def say(text: str = "", *, err: bool = False, **style: Any) -> None:
    """Print a line, styled (`fg`, `bold`, `dim`) where that is shown."""
    click.echo(click.style(text, **style) if style else text, err=err, color=colour())


def note(text: str) -> None:
    """Print a remark for a person; it goes to stderr, so that stdout holds the data alone."""
    say(text, err=True, dim=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"{click.style('Warning:', fg='yellow')} {text}", err=True, color=colour())


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def is_terminal(stream: IO[Any] | None = None) -> bool:
    """Whether the stream (default: stdout) is a terminal that understands control sequences."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def can_print(text: str) -> bool:
    """Whether stdout can show these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def without_controls(text: str) -> str:
    """Drop control characters: text of a model must not steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f"))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers: fitted to a terminal, never cut or wrapped in a pipe."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(headers, cells)
        return
    lines = [[header.upper() for header in headers], *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(GAP.join(padded).rstrip())


def _print_rich(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        # Text, not markup: a name may hold brackets.
        table.add_row(*(Text(without_controls(cell)) for cell in row))
    Console(highlight=False).print(table)


def size_text(size: int | None) -> str:
    """Write a number of bytes as people do: 1.6 MB (decimal units, as model hubs use them)."""
    return _scaled(size, 1000, ("B", "kB", "MB", "GB", "TB"), " ")


def count_text(count: int | None) -> str:
    """Write a number of parameters as people do: 7.2B."""
    return _scaled(count, 1000, ("", "K", "M", "B", "T"), "")


def _scaled(value: int | None, step: int, units: Sequence[str], gap: str) -> str:
    if value is None:
        return ""
    scaled, index = float(value), 0
    # 999.95 would be written as 1000.0.
    while scaled >= step - 0.05 and index < len(units) - 1:
        scaled, index = scaled / step, index + 1
    number = str(value) if index == 0 else f"{scaled:.1f}"
    return f"{number}{gap}{units[index]}".strip()
