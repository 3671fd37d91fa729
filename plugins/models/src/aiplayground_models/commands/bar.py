"""The progress bar of `aipg pull` at a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn


class Bar:
    """One bar: the file, how much of it is here, how fast it comes."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[more]}"),
            console=Console(highlight=False),
        )
        self._task = self._bar.add_task("", total=None, more="")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, state: dict[str, Any]) -> None:
        """Move the bar."""
        figures = [state.get("speed", ""), state.get("eta", "")]
        more = state.get("message") or "  ".join(each for each in figures if each)
        if state["status"] not in ("downloading", "complete"):
            more = "  ".join(each for each in (state["status"], more) if each)
        self._bar.update(
            self._task,
            description=escape(state["filename"]),
            completed=state["downloaded"],
            total=state.get("total"),
            more=escape(more),
        )
