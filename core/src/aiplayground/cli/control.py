"""`aipg start`, `stop`, `restart`: services of the running kernel."""

from __future__ import annotations

from typing import Any

import click

from ._app import App, json_option
from ._output import print_json, say
from ._remote import the_running
from .completion import complete_service

GATEWAY = "ai-backend"


@click.command("start")
@json_option
@click.argument("service", shell_complete=complete_service)
@click.option("-m", "--model", metavar="NAME", help="Model to load, too.")
@click.pass_obj
def start(app: App, service: str, model: str | None) -> None:
    """Start a service of the running kernel."""
    _show(app, the_running(app).act(service, "start", model))


@click.command("stop")
@json_option
@click.argument("service", default=GATEWAY, shell_complete=complete_service)
@click.pass_obj
def stop(app: App, service: str) -> None:
    """Stop a service, or the running kernel itself."""
    _show(app, the_running(app).act(service, "stop"))


@click.command("restart")
@json_option
@click.argument("service", shell_complete=complete_service)
@click.pass_obj
def restart(app: App, service: str) -> None:
    """Stop a service and start it again."""
    _show(app, the_running(app).act(service, "restart"))


def _show(app: App, info: dict[str, Any]) -> None:
    if app.json:
        print_json(info)
        return
    loaded = f" with {', '.join(info['models'])}" if info.get("models") else ""
    say(f"{info['name']}: {info['currentStatus']}{loaded}")
