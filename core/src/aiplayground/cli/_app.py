"""What the global options say, handed to every command as click's context object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from aiplayground.paths import Paths

    from ._signals import Signals

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class App:
    """One run of `aipg`. Commands of plugins get it too: `@click.pass_obj`."""

    home: str | None = None
    """The folder of `--home`, to be passed to `Kernel(home=...)`."""
    json: bool = False
    """Whether the command was asked for JSON; errors are printed as JSON then, too."""
    loop_factory: Callable[[], AbstractEventLoop] | None = field(default=None, repr=False)
    """What makes the event loop; None: asyncio's own."""
    signals: Signals | None = field(default=None, repr=False)
    """What Ctrl-C does, while a kernel runs."""

    @property
    def paths(self) -> Paths:
        """The directories of this home."""
        from aiplayground.paths import Paths

        return Paths.resolve(self.home)


def json_option(function: Function) -> Function:
    """Give a command `--json`; it is remembered in `App.json`."""
    # Eager: an error in a later option is then already reported as JSON.
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember,
        help="Print JSON instead of text.",
    )(function)


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(App).json = True
