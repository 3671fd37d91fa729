"""One line on stderr that says what is being waited for; only on a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from aiplayground.events import Event, ModelLoaded, ServiceInfoUpdate
from aiplayground.states import Runtime

from ._output import colour, is_terminal, without_controls

if TYPE_CHECKING:
    from ._kernels import ChatKernel

_CLEAR = "\r\x1b[K"
_THINKING = "Thinking …"


class StatusLine:
    """Text that replaces itself, and is gone before anything else is printed."""

    def __init__(self) -> None:
        self._on = is_terminal(sys.stderr)
        self._shown = ""
        self._over = False

    def show(self, text: str) -> None:
        """Replace the text."""
        if self._on and not self._over and text != self._shown:
            self._shown = text
            # A line that wraps could not be taken back.
            fitting = without_controls(text).replace("\n", " ")[: _width() - 1]
            shown = fitting if colour() is False else click.style(fitting, dim=True)
            self._write(_CLEAR + shown)

    def clear(self) -> None:
        """Take the text away."""
        if self._shown:
            self._shown = ""
            self._write(_CLEAR)

    def end(self) -> None:
        """Take the text away for good: what was waited for is here."""
        self.clear()
        self._over = True

    def _write(self, text: str) -> None:
        click.echo(text, nl=False, err=True)


@asynccontextmanager
async def narrated(kernel: ChatKernel, model: str) -> AsyncIterator[StatusLine]:
    """Say what the kernel does to get an answer of a model, until `end` or the end of the block."""
    status = StatusLine()
    if any(service.models for service in kernel.services()):
        status.show(_THINKING)
    async with kernel.subscribe(ServiceInfoUpdate, ModelLoaded, snapshot=False) as events:

        async def follow() -> None:
            async for event in events:
                text = describe(event, model)
                if text:
                    status.show(text)

        follower = asyncio.create_task(follow())
        try:
            yield status
        finally:
            follower.cancel()
            await asyncio.wait({follower})
            status.end()


def describe(event: Event, model: str) -> str:
    """Return what an event means to somebody who waits for an answer; empty: nothing."""
    if isinstance(event, ModelLoaded):
        return _THINKING
    if not isinstance(event, ServiceInfoUpdate):
        return ""
    service = next((each for each in event.services if each.name == event.service), None)
    if service is None:
        return ""
    if service.runtime is Runtime.BACKOFF:
        return f"{service.title} went away and is started again …"
    if service.runtime is Runtime.STARTING:
        return f"Starting {service.title} …"
    if service.runtime is Runtime.RUNNING and not service.models:
        return f"Loading {model} …"
    return ""


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
