"""`aipg devices`: what can compute on this computer, as the plugins find it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ._app import App, json_option
from ._output import print_json, print_table, say, size_text
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.specs import Device


@click.command("devices")
@json_option
@click.pass_obj
def command(app: App) -> None:
    """List what can compute on this computer.

    The first column is what the setting `devices` of a service takes. A GPU that is missing here
    is one that no installed engine was built for.
    """

    async def look(kernel: Kernel) -> list[Device]:
        return await kernel.devices()

    devices = run_with_kernel(app, look)
    if app.json:
        print_json({"devices": [asdict(each) for each in devices]})
        return
    if not devices:
        say("No plugin found a device: is a backend installed? `aipg plugins` lists them.")
        return
    print_table(["id", "kind", "memory", "name"], [_row(each) for each in devices])


def _row(device: Device) -> list[str]:
    return [device.id, device.kind, size_text(device.memory) if device.memory else "", device.name]
