"""`aipg services`: the backends and where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._app import App, json_option
from ._output import note, print_json, print_table, say
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.status import ServiceInfo


@click.command("services")
@json_option
@click.pass_obj
def command(app: App) -> None:
    """List the services (backends) and their state."""

    async def look(kernel: Kernel) -> tuple[tuple[ServiceInfo, ...], int]:
        return kernel.services(), len(kernel.plugins.failures)

    services, failures = run_with_kernel(app, look)
    if app.json:
        print_json([service.as_api() for service in services])
        return
    if services:
        _print(services)
    else:
        say("No services: no backend is installed. Try: pip install aiplayground-llamacpp")
    if failures:
        note(f"{failures} of the plugins failed to load: `aipg plugins` says why.")


def _print(services: tuple[ServiceInfo, ...]) -> None:
    print_table(
        ["service", "title", "status", "port", "version", "models loaded"],
        [
            [
                each.name,
                each.title,
                each.status.value,
                each.port or None,
                each.version,
                ", ".join(each.models),
            ]
            for each in services
        ],
    )
    for each in services:
        if each.attached:
            say(f"{each.name} is attached to {each.base_url}; it is not started or ended here.")
        if each.error is not None:
            say(f"{each.name}: {each.error['message']}", fg="red")
        elif not each.set_up:
            say(f"{each.name} is not set up. Run: aipg setup {each.name}")
