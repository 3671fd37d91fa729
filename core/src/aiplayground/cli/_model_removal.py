"""`aipg models rm`: what goes is said, asked about, unloaded, removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ._output import is_terminal, say, size_text
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.models import Removal

    from ._app import App


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `freed` is in bytes."""

    name: str
    done: bool
    freed: int
    files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "model": self.name,
            "removed": self.done,
            "freed": self.freed,
            "files": list(self.files),
        }


def remove(app: App, name: str, *, sure: bool) -> Outcome:
    """Remove a model; `sure` asks nothing. Raises what `Library.plan_removal` does."""

    async def work(kernel: Kernel) -> Outcome:
        removal = await kernel.library.plan_removal(name)
        done = sure or _agreed(app, removal)
        if done:
            _unload(app, removal.model.name)
            await kernel.library.remove(removal)
        files = tuple(map(str, (*removal.files, *filter(None, [removal.folder]))))
        return Outcome(removal.model.name, done, removal.freed if done else 0, files)

    return run_with_kernel(app, work)


def _agreed(app: App, removal: Removal) -> bool:
    if app.json:
        raise click.UsageError("With --json nothing is asked: give --yes to remove the model.")
    for line in plan_text(removal):
        say(line)
    if not is_terminal():
        raise click.UsageError("This is no terminal, so nothing can be asked: give --yes.")
    return click.confirm("Remove it?", default=False)


def plan_text(removal: Removal) -> list[str]:
    """Say what goes, what stays, and what that frees. Pure."""
    lines = [f"{removal.model.name}:"]
    lines += [f"  {path}" for path in removal.files]
    if removal.folder is not None:
        lines.append(f"  {removal.folder}  (the whole folder)")
    if removal.kept is not None:
        lines.append(f"  {removal.kept.name} stays: other models use it, or it is not ours.")
    freed = removal.freed
    lines.append(
        f"Removing it frees {size_text(freed)}."
        if freed
        else "Removing it frees nothing: its files are links, or have other names as well."
    )
    return lines


def _unload(app: App, name: str) -> None:
    """Let the running kernel unload the model; raises what that fails with if it is in use."""
    from ._remote import loaded_models, the_running

    for service, model in loaded_models(app.paths):
        if model == name:
            the_running(app).act(service, "unload", name)
