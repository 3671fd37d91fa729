"""`aipg devices`: what can compute on this computer, and the choice of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json, print_table, say, size_text
from ._remote import running
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel


@click.command("devices")
@json_option
@click.option(
    "--select",
    "wanted",
    metavar="DEVICE",
    help="Compute on this one: an id, or a name that means one alone; `auto` takes it back.",
)
@click.pass_obj
def command(app: App, wanted: str | None) -> None:
    """List what can compute on this computer, and choose a device.

    Services that run on a chosen device restart when the choice changes. The last column has the
    names that engines give a device.
    """
    if wanted is not None:
        _call(app, "selectDevice", wanted)
    devices = _call(app, "detectDevices")
    if app.json:
        print_json({"devices": devices})
        return
    print_table(["", "id", "type", "memory", "name", "engines call it"], list(map(_row, devices)))
    if wanted is not None and not any(each["selected"] for each in devices):
        say("No device is chosen: each engine takes what it finds.")


def _call(app: App, method: str, *params: Any) -> Any:
    """Call a method of the running kernel if there is one, else of a kernel of our own."""
    if running(app.paths) is not None:
        from aiplayground.client import Client

        with Client(home=app.home) as client:
            return client.call(method, *params)

    async def work(kernel: Kernel) -> Any:
        return await kernel.call(method, *params)

    return run_with_kernel(app, work)


def _row(device: dict[str, Any]) -> list[object]:
    return [
        "*" if device["selected"] else "",
        device["id"],
        device["type"],
        size_text(device["vram"] or None),
        device["name"],
        ", ".join(device["aliases"]),
    ]
