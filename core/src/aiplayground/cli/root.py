"""`aipg` itself: the global options, and how every run ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from aiplayground import __version__

from . import exits
from ._app import App
from ._errors import TRACEBACK_VARIABLE, ending
from ._group import CommandGroup

PROGRAM = "aipg"
COMPLETE_VARIABLE = "_AIPG_COMPLETE"

_EPILOG = f"""\
Start with: aipg chat "What is AI Playground?"

{exits.SUMMARY}

Environment: AIPG_HOME moves every directory; AIPG_<SECTION>__<KEY> is a setting; NO_COLOR turns
colours off; {TRACEBACK_VARIABLE}=1 shows the traceback of an unexpected error.

Plugins may bring further commands: `aipg plugins` names them.
"""


@click.group(
    PROGRAM,
    cls=CommandGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="aipg %(version)s")
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Keep everything (settings, models, engines, logs) under this folder, as AIPG_HOME does.",
)
@click.pass_obj
def root(app: App, home: str | None) -> None:
    """Run AI models on your own computer."""
    app.home = home


def run_root(args: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a character gets a mark in its place, not an error.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    app = App()
    return ending(
        app,
        lambda: root.main(
            args=list(args),
            prog_name=PROGRAM,
            complete_var=COMPLETE_VARIABLE,
            standalone_mode=False,
            obj=app,
        ),
    )
