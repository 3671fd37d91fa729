"""`aipg setup`: install what a service needs, with progress."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import click

from ._app import App, json_option
from ._output import is_terminal, print_json, say
from ._run import run_with_kernel
from .completion import complete_service

if TYPE_CHECKING:
    from types import TracebackType

    from aiplayground.kernel import Kernel
    from aiplayground.status import ServiceInfo

STEP = 10
"""Percent from one plain line to the next."""


@click.command("setup")
@json_option
@click.argument("service", shell_complete=complete_service)
@click.pass_obj
def command(app: App, service: str) -> None:
    """Install what a service needs.

    What is there already is brought up to date. `aipg services` lists the services. Ctrl-C ends
    the installation; run it again to go on.
    """

    async def install(kernel: Kernel) -> ServiceInfo:
        kernel.service(service)
        if app.json:
            return await kernel.set_up(service)
        with progress() as shown:
            return await set_up(kernel, service, shown)

    info = run_with_kernel(app, install)
    if app.json:
        print_json(info.as_api())
        return
    version = f", version {info.version}" if info.version else ""
    say(f"{info.title} is set up ({info.name}{version}).")


class Progress(Protocol):
    """Shows how far an installation is; `percent` is 0 to 100."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, stage: str, percent: float, message: str) -> None:
        """Show one step."""


async def set_up(kernel: Kernel, service: str, shown: Progress) -> ServiceInfo:
    """Install and show each step. When it is cancelled, so is the installation."""
    from aiplayground.events import ServiceSetUpProgress

    async with kernel.subscribe(ServiceSetUpProgress, snapshot=False) as events:

        async def follow() -> None:
            async for event in events:
                if isinstance(event, ServiceSetUpProgress) and event.service == service:
                    shown.show(event.stage, event.progress, event.message)

        follower = asyncio.create_task(follow())
        try:
            return await kernel.set_up(service)
        finally:
            # Closed, it still gives out what it holds: the last steps are shown, too.
            events.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(follower, timeout=1)


def progress() -> Progress:
    """Return a bar for a terminal, else plain lines."""
    if is_terminal():
        from ._progress_bar import ProgressBar

        return ProgressBar()
    return ProgressLines()


class ProgressLines:
    """A line for each stage, and for each `STEP` percent of it."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, stage: str, percent: float, message: str) -> None:
        """Print a line if there is enough news."""
        now = (stage, int(percent // STEP))
        if now != self._last:
            self._last = now
            say(f"{percent:3.0f} % {stage}{': ' if message else ''}{message}")
