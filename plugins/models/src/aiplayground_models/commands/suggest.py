"""`aipg models suggest`: models to start with that fit this computer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiplayground.cli._app import json_option
from aiplayground.cli._output import print_json, say, size_text
from aiplayground.cli._run import run_with_kernel
from aiplayground_models.room import Room, look
from aiplayground_models.starters import PURPOSES, Suggestion, read_starters, suggest

if TYPE_CHECKING:
    from aiplayground.cli._app import App

SHOWN = 3
"""Models that are shown unless all are asked for."""


@click.command("suggest")
@json_option
@click.option("--for", "purpose", type=click.Choice(PURPOSES), help="What it shall be good for.")
@click.option("--all", "every", is_flag=True, help="Show all, those too large included.")
@click.pass_obj
def command(app: App, purpose: str | None, every: bool) -> None:
    """Suggest models to start with that fit this computer.

    Goes by what is free now: on graphics cards that an engine here can use, in main memory, on the
    disk. Sizes are approximate until `aipg pull` asks for them.
    """
    memory = memory_here(app)
    found = suggestions(app, memory, purpose)
    shown = found if every else [each for each in found if each.fits][:SHOWN]
    if app.json:
        print_json(
            {
                "models": [_as_json(each) for each in shown],
                "memory": [asdict(each) for each in memory],
            }
        )
        return
    if not shown:
        say("None of the models to start with fits into what is free. --all shows why.")
    for each in shown:
        _print(each)


def memory_here(app: App) -> tuple[Room, ...]:
    """Return the memories of this computer; engines are asked for their devices."""
    return run_with_kernel(app, look)


def suggestions(app: App, memory: Sequence[Room], purpose: str | None = None) -> list[Suggestion]:
    """Return what suits this computer now."""
    from aiplayground.cli.models import model_paths

    disk = shutil.disk_usage(_existing(model_paths(app).root)).free
    return suggest(read_starters(), memory=memory, disk=disk, purpose=purpose)


def _print(each: Suggestion) -> None:
    starter = each.starter
    say(f"{starter.id}  {starter.about}", bold=True)
    what = ", ".join(starter.good_for)
    say(f"  {what}; licence {starter.licence}; about {size_text(starter.size)}")
    say(f"  {each.why}")
    if starter.gated:
        say("  Accept its licence on the Hub first, and set a token: aipg config hf-token")
    say(f"  {starter.command}")


def _as_json(each: Suggestion) -> dict[str, object]:
    return {
        **asdict(each.starter),
        "command": each.starter.command,
        "fits": each.fits,
        "why": each.why,
    }


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
