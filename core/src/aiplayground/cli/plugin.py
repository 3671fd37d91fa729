"""`aipg plugin new`: write the package of a new plugin."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ._app import App, json_option
from ._output import print_json, say


@click.group("plugin")
def command() -> None:
    """Write a plugin of your own."""


@command.command("new")
@json_option
@click.argument("name")
@click.option(
    "--manifest", is_flag=True, help="A backend that is a TOML file alone, without any Python."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write it; must be new or empty. Default: a new folder with the plugin's name.",
)
@click.pass_obj
def new(app: App, name: str, manifest: bool, directory: Path | None) -> None:
    """Write a complete package with a backend that works.

    NAME becomes the name of the distribution, the plugin and the service, for instance
    `my-backend`. The backend repeats what it is told, until you put your engine in. The package
    builds, installs, and passes the conformance kit as it is.
    """
    from aiplayground._scaffold import Kind, write_package

    from ._discovery import discover

    package = write_package(
        name,
        directory,
        kind=Kind.MANIFEST if manifest else Kind.PYTHON,
        taken=discover(app).names,
    )
    files = [str(file) for file in package.files]
    if app.json:
        print_json({"plugin": package.name, "path": str(package.folder), "files": files})
        return
    say(f"{package.name} is in {package.folder}:")
    for file in files:
        say(f"  {file}")
    say("Next:")
    say(f"  pip install -e {shlex.quote(f'{package.folder}[test]')}")
    say(f"  aipg chat -m {package.model} Hello")
    say(f"  python -m pytest {shlex.quote(str(package.folder))}")
