"""The installation of one service's engine: the first of its two state machines.

Its methods named `on_…` are messages to the service's actor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._actor import Actor, Waiter, outcome, settle
from .errors import AIPlaygroundError, ServiceNotAvailable
from .states import Installation, Runtime

if TYPE_CHECKING:
    from ._service import Service


class Installer:
    """Installs, upgrades and removes an engine, one of these at a time.

    `then` is called in the actor when one has ended, whether well or not.
    """

    def __init__(self, service: Service, actor: Actor, then: Callable[[], None]) -> None:
        self.job: asyncio.Task[None] | None = None
        self._state = service.state
        self._ops = service.ops
        self._logger = service.log.logger
        self._actor = actor
        self._then = then
        self._waiters = actor.waiters()
        self._removing = False

    @property
    def busy(self) -> bool:
        """Whether an installation or a removal is under way."""
        return self.job is not None

    async def look(self) -> None:
        """Find out what is installed, before the actor takes messages."""
        try:
            there = await self._ops.look()
            self._state.installation = Installation.INSTALLED if there else Installation.ABSENT
        except AIPlaygroundError as error:
            self._state.installation, self._state.error = Installation.BROKEN, error

    # Install and upgrade ------------------------------------------------------------------

    def on_set_up(self, waiter: Waiter) -> None:
        """Install the engine, or bring an installed one up to date."""
        if self._actor.closed or (self.job is not None and self._removing):
            settle(waiter, self._refusal("removed"))
            return
        self._waiters.add(waiter)
        if self.job is not None:
            return
        upgrade = self._state.installation is Installation.INSTALLED
        self._state.set_installation(Installation.UPGRADING if upgrade else Installation.INSTALLING)
        self.job = self._actor.begin(self._ops.set_up(), self._on_set_up_done)

    def on_cancel(self, waiter: Waiter) -> None:
        """End an installation in progress; a removal only when the service closes."""
        if self.job is None or (self._removing and not self._actor.closed):
            settle(waiter)
            return
        self.job.cancel()
        self.job.add_done_callback(lambda _: self._actor.post(settle, waiter))

    def _on_set_up_done(self, job: asyncio.Task[None]) -> None:
        self.job = None
        error = outcome(job)
        self._state.error = None if job.cancelled() else error
        if error is not None and not job.cancelled():
            self._logger.error("The set-up failed: %s", error.message, exc_info=error)
        self._state.set_installation(self._after_set_up(error, cancelled=job.cancelled()))
        self._ended(error)

    def _after_set_up(self, error: AIPlaygroundError | None, *, cancelled: bool) -> Installation:
        before = self._state.installation
        if error is None or (self._ops.installed and before is Installation.UPGRADING):
            return Installation.INSTALLED
        if cancelled and before is Installation.INSTALLING:
            return Installation.ABSENT
        return Installation.BROKEN

    # Remove -------------------------------------------------------------------------------

    def on_uninstall(self, waiter: Waiter) -> None:
        """Remove the engine of a service that is stopped."""
        if self._actor.closed or (self.job is not None and not self._removing):
            settle(waiter, self._refusal("set up"))
            return
        if self._state.runtime is not Runtime.STOPPED:
            settle(waiter, self._refusal("started"))
            return
        self._waiters.add(waiter)
        if self.job is None:
            self._removing = True
            self.job = self._actor.begin(self._ops.uninstall(), self._on_uninstalled)

    def _on_uninstalled(self, job: asyncio.Task[None]) -> None:
        self.job, self._removing = None, False
        error = outcome(job)
        self._state.error = error
        if not self._ops.installed and self._state.installation is not Installation.ABSENT:
            self._state.set_installation(Installation.ABSENT)
        self._ended(error)

    def _ended(self, error: AIPlaygroundError | None) -> None:
        self._waiters.settle(error)
        self._then()

    def _refusal(self, doing: str) -> ServiceNotAvailable:
        if self._actor.closed:
            return self._actor.shut_down()
        return ServiceNotAvailable(
            f"{self._state.name} is being {doing}. Wait for that to end, then try again.",
            details={"service": self._state.name},
        )
