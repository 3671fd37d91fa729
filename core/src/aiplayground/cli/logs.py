"""`aipg logs` and `aipg events`: what the running kernel says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from ._app import App, json_option
from ._output import say, without_controls
from ._remote import the_running
from .completion import complete_service
from .exits import NotRunning

if TYPE_CHECKING:
    from collections.abc import Mapping

WENT = "The running kernel, or its gateway, was stopped."

KERNEL = "kernel"
"""The log of the kernel itself."""


@click.command("logs")
@json_option
@click.argument("service", default=KERNEL, shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on with the lines that come.")
@click.option("-n", "--tail", type=click.IntRange(0, 1000), default=100, show_default=True)
@click.pass_obj
def logs(app: App, service: str, follow: bool, tail: int) -> None:
    """Show what a service logs.

    The last lines, of the kernel's own log if no service is named. With --json, a JSON document
    a line.
    """
    name = quote(service, safe="")
    path = f"/api/kernel/services/{name}/log?tail={tail}&follow={int(follow)}"
    for _, line in the_running(app).stream(path):
        if app.json:
            say(json.dumps(line, ensure_ascii=False))
        else:
            say(_log_line(line))
    if follow:
        raise NotRunning(WENT)


@click.command("events")
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with the events that come.")
@click.pass_obj
def events(app: App, follow: bool) -> None:
    """Show what happens in the running kernel.

    Where everything stands and, with -f, every event from then on. With --json, a JSON document
    a line.
    """
    for name, body in the_running(app).stream("/api/kernel/events"):
        if app.json:
            say(json.dumps({"event": name, **body}, ensure_ascii=False))
        else:
            say(f"{_time(body)} {name}  {_summary(body)}")
        if not follow:
            return
    raise NotRunning(WENT)


def _log_line(line: Mapping[str, Any]) -> str:
    text = without_controls(str(line["text"]))
    return f"{_time(line)} {str(line['level']).upper():<7} {line['source']}: {text}"


def _time(body: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(body["time"], UTC).isoformat(timespec="milliseconds")


def _summary(body: Mapping[str, Any]) -> str:
    """Return an event's fields in a line; of a service's change, its new status."""
    states = {each["name"]: each["currentStatus"] for each in body.get("services", ())}
    fields = {key: value for key, value in body.items() if key not in ("seq", "time", "services")}
    if "service" in fields and states:
        return f"{fields['service']}: {states.get(fields['service'], '')}"
    shown = {**fields, **states} if states else fields
    return "  ".join(f"{key}={value}" for key, value in shown.items() if value not in ("", {}))
