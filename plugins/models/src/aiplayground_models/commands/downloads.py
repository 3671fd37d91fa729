"""`aipg downloads`: what is on its way, what is left of downloads that ended, and removing that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from aiplayground.cli._app import json_option
from aiplayground.cli._output import print_json, print_table, say, size_text
from aiplayground_models.partial import DAY, Partial, find_partials

if TYPE_CHECKING:
    from aiplayground.cli._app import App

ENDED = ("complete", "cancelled", "error")


@click.command("downloads")
@json_option
@click.option("--clear", is_flag=True, help="Remove what is left of downloads that ended.")
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="With --clear: only what did not change for so long.",
)
@click.pass_obj
def command(app: App, clear: bool, days: float | None) -> None:
    """List downloads on their way, and parts of files that are kept to go on from.

    The same `aipg pull` goes on from a part. One that nobody asks for any more is removed by a
    download after hub.keep_partial days, or by --clear now.
    """
    if days is not None and not clear:
        raise click.UsageError("--days goes with --clear.")
    if clear:
        _clear(app, days or 0.0)
        return
    running, parts = _on_their_way(app), [each for each in _partials(app) if not each.busy()]
    if app.json:
        print_json({"downloads": running, "partial": list(map(_as_json, parts))})
        return
    if not running and not parts:
        say("Nothing is on its way, and nothing is left of earlier downloads.")
        return
    headers = ["model", "file", "here", "of", "what"]
    print_table(headers, [*map(_running_row, running), *map(_row, parts)])


def _clear(app: App, days: float) -> None:
    from aiplayground.paths import file_error

    gone: list[Partial] = []
    for each in _partials(app):
        if each.changed > time.time() - days * DAY:
            continue
        try:
            if each.remove():
                gone.append(each)
        except OSError as error:
            raise file_error("remove", each.place, error) from error
    freed = sum(each.size for each in gone)
    if app.json:
        print_json({"removed": list(map(_as_json, gone)), "freed": freed})
    elif gone:
        say(f"{len(gone)} removed; {size_text(freed)} are free again.")
    else:
        say("There is nothing to remove.")


def _partials(app: App) -> list[Partial]:
    from aiplayground.cli.models import model_paths
    from aiplayground.paths import file_error

    paths = model_paths(app)
    try:
        return find_partials([*paths.writable(), paths.root])
    except OSError as error:
        raise file_error("read", paths.root, error) from error


def _on_their_way(app: App) -> list[dict[str, Any]]:
    """Return the downloads of the running kernel; without one there are none."""
    from aiplayground.cli._remote import running

    if running(app.paths) is None:
        return []
    from aiplayground.client import Client

    with Client(home=app.home) as client:
        return [each for each in client.call("listDownloads") if each["status"] not in ENDED]


def _running_row(state: dict[str, Any]) -> list[object]:
    what = [state["status"], f"{state['progress']:.0f} %", state.get("eta", "")]
    return [
        state["repo"],
        state["filename"],
        size_text(state["downloaded"]),
        size_text(state.get("total")),
        "  ".join(each for each in what if each),
    ]


def _row(part: Partial) -> list[object]:
    days = int((time.time() - part.changed) // DAY)
    when = "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"
    repo, file = part.repo or "unknown", part.file or part.place.name
    return [repo, file, size_text(part.size), size_text(part.total), f"kept since {when}"]


def _as_json(part: Partial) -> dict[str, Any]:
    return {
        "repo": part.repo or None,
        "file": part.file or None,
        "size": part.size,
        "total": part.total,
        "changed": part.changed,
        "path": str(part.place),
    }
