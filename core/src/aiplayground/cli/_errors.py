"""How a run ends: the exit code, and what is printed when it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from . import exits
from ._output import colour, print_json

if TYPE_CHECKING:
    from ._app import App

TRACEBACK_VARIABLE = "AIPG_TRACEBACK"
"""Set to 1, this environment variable shows the traceback of an unexpected error."""


def ending(app: App, call: Callable[[], Any]) -> int:
    """Run `call` and return the exit code; whatever it raises has been explained then."""
    try:
        returned = call()
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except exits.Interrupted as interrupted:
        return interrupted.exit_code
    except exits.NotRunning as error:
        return _not_running(app, error)
    except BrokenPipeError:
        return _reader_gone()
    except click.ClickException as error:
        return _wrong_usage(app, error)
    except Exception as error:  # noqa: BLE001  # the outermost place: explained to the user
        return _failed(app, error)
    return returned if isinstance(returned, int) else exits.OK


def _reader_gone() -> int:
    # `aipg models | head`: the reader has what it wanted. The interpreter's own flush at exit
    # must not complain either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.ERROR


def _not_running(app: App, error: exits.NotRunning) -> int:
    from aiplayground.errors import ServiceNotAvailable

    report(ServiceNotAvailable(str(error)), as_json=app.json)
    return exits.NOT_RUNNING


def _wrong_usage(app: App, error: click.ClickException) -> int:
    if app.json:
        print_json({"code": -4, "message": error.format_message(), "details": {}})
    else:
        error.show()
    return error.exit_code


def _failed(app: App, error: Exception) -> int:
    from aiplayground.errors import AIPlaygroundError

    if isinstance(error, AIPlaygroundError):
        report(error, as_json=app.json)
        return exits.ERROR
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        raise error
    report(
        AIPlaygroundError(
            f"Something unexpected went wrong ({type(error).__name__}: {error}). This is a defect "
            f"of the program or of a plugin; run it again with {TRACEBACK_VARIABLE}=1 to see where."
        ),
        as_json=app.json,
    )
    return exits.ERROR


def report(error: Any, *, as_json: bool = False) -> None:
    """Print an error of ours: for a person on stderr, or its documented body on stdout."""
    if as_json:
        print_json(error.to_dict())
        return
    click.echo(
        f"{click.style('Error:', fg='red', bold=True)} {error.message}", err=True, color=colour()
    )
