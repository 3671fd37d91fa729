"""`aipg services`: the backends and where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import note, print_json, print_table, say
from ._remote import running
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

BESIDE = ("title", "models", "workers")
"""What is shown and is no part of the documented `ApiServiceInformation`."""


@click.command("services")
@json_option
@click.pass_obj
def command(app: App) -> None:
    """List the services (backends) and their state.

    Those of the running kernel (`aipg serve`) if there is one.
    """

    async def look(kernel: Kernel) -> tuple[list[dict[str, Any]], int]:
        shown = [
            {**each.as_api(), "title": each.title, "models": list(each.models)}
            for each in kernel.services()
        ]
        return shown, len(kernel.plugins.failures)

    remote = running(app.paths)
    services, failures = (remote.services(), 0) if remote else run_with_kernel(app, look)
    if app.json:
        print_json([_documented(each) for each in services])
        return
    if services:
        _print(services)
    else:
        say("No services: no backend is installed. Try: pip install aiplayground-llamacpp")
    if failures:
        note(f"{failures} of the plugins failed to load: `aipg plugins` says why.")


def _documented(service: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in service.items() if key not in BESIDE}


def _print(services: list[dict[str, Any]]) -> None:
    print_table(
        ["service", "title", "status", "port", "version", "models loaded"],
        [
            [
                each["name"],
                each["title"],
                each["currentStatus"],
                each["port"] or None,
                each.get("version"),
                ", ".join(each["models"]),
            ]
            for each in services
        ],
    )
    for each in services:
        if each.get("attached"):
            say(
                f"{each['name']} is attached to {each['baseUrl']}; it is not started or ended here."
            )
        if each.get("error"):
            say(f"{each['name']}: {each['error']['message']}", fg="red")
        elif not each["isSetUp"]:
            say(f"{each['name']} is not set up. Run: aipg setup {each['name']}")
