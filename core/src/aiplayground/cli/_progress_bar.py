"""The progress bar of a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class ProgressBar:
    """One bar whose text is the stage, with the message beside it."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}"),
            console=Console(highlight=False),
        )
        self._task = self._bar.add_task("", total=100, message="")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, stage: str, percent: float, message: str) -> None:
        """Move the bar; it appears with the first step."""
        self._bar.start()
        self._bar.update(
            self._task, description=escape(stage), completed=percent, message=escape(message)
        )
