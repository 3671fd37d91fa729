"""Where one service stands; written by its actor alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .errors import AIPlaygroundError, ServiceNotAvailable
from .states import INSTALLATION, RUNTIME, Desired, Installation, Runtime, check_transition


@dataclass(slots=True)
class ServiceState:
    """The two states of a service, what is wanted of it, and what went wrong last.

    `announce` is called with the service's name after each transition.
    """

    name: str
    logger: logging.Logger
    announce: Callable[[str], None]
    installation: Installation = Installation.ABSENT
    runtime: Runtime = Runtime.STOPPED
    desired: Desired = Desired.DOWN
    start_tried: bool = False
    error: AIPlaygroundError | None = None

    def set_runtime(self, state: Runtime) -> None:
        """Go over to a state of what runs; raises `InvalidTransition`."""
        self.runtime = check_transition(self.name, RUNTIME, self.runtime, state)
        self._tell(state)

    def set_installation(self, state: Installation) -> None:
        """Go over to a state of what is installed; raises `InvalidTransition`."""
        self.installation = check_transition(self.name, INSTALLATION, self.installation, state)
        self._tell(state)

    def _tell(self, state: Runtime | Installation) -> None:
        self.logger.info("%s", state.value)
        self.announce(self.name)

    def not_set_up(self) -> ServiceNotAvailable:
        """Return the error for a start of what is not installed."""
        why = f" ({self.error.message})" if self.error else ""
        return ServiceNotAvailable(
            f"{self.name} is not set up{why}. Run: aipg setup {self.name}",
            details={"service": self.name},
        )
