"""The two state machines of a service, as data.

`INSTALLATION` and `RUNTIME` are the single source for the code, for the diagram in the docs and
for the exhaustive test. The seven names of the API reference are a view: `backend_status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from .errors import InvalidTransition


class Installation(StrEnum):
    """What of the engine is on the disk."""

    ABSENT = "absent"
    INSTALLING = "installing"
    INSTALLED = "installed"
    UPGRADING = "upgrading"
    BROKEN = "broken"


class Runtime(StrEnum):
    """What of the engine runs. Running means healthy, not "a process exists"."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Desired(StrEnum):
    """What the user asked for last; it tells a crash from a stop."""

    UP = "up"
    DOWN = "down"


class BackendStatus(StrEnum):
    """The outside view: `BackendStatus` of the API reference, word for word."""

    NOT_INSTALLED = "NotInstalled"
    INSTALLING = "Installing"
    INSTALLED = "Installed"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


INSTALLATION: Mapping[Installation, frozenset[Installation]] = MappingProxyType(
    {
        Installation.ABSENT: frozenset({Installation.INSTALLING}),
        Installation.INSTALLING: frozenset(
            {Installation.INSTALLED, Installation.ABSENT, Installation.BROKEN}
        ),
        Installation.INSTALLED: frozenset(
            {Installation.UPGRADING, Installation.ABSENT, Installation.BROKEN}
        ),
        Installation.UPGRADING: frozenset({Installation.INSTALLED, Installation.BROKEN}),
        Installation.BROKEN: frozenset(
            {Installation.INSTALLING, Installation.INSTALLED, Installation.ABSENT}
        ),
    }
)

RUNTIME: Mapping[Runtime, frozenset[Runtime]] = MappingProxyType(
    {
        Runtime.STOPPED: frozenset({Runtime.STARTING}),
        Runtime.STARTING: frozenset(
            {Runtime.RUNNING, Runtime.STOPPING, Runtime.FAILED, Runtime.BACKOFF}
        ),
        Runtime.RUNNING: frozenset({Runtime.STOPPING, Runtime.FAILED, Runtime.BACKOFF}),
        Runtime.STOPPING: frozenset({Runtime.STOPPED, Runtime.FAILED}),
        Runtime.BACKOFF: frozenset({Runtime.STARTING, Runtime.STOPPING, Runtime.FAILED}),
        Runtime.FAILED: frozenset({Runtime.STARTING, Runtime.STOPPING}),
    }
)

State = TypeVar("State", bound=StrEnum)


def check_transition(
    service: str, table: Mapping[State, frozenset[State]], old: State, new: State
) -> State:
    """Return `new` if the table has the edge; raise `InvalidTransition` if not."""
    if new not in table[old]:
        raise InvalidTransition(
            f"{service}: no transition from '{old}' to '{new}'.",
            details={"service": service, "from": str(old), "to": str(new)},
        )
    return new


_WHILE_UP: Mapping[Runtime, BackendStatus] = MappingProxyType(
    {
        Runtime.STARTING: BackendStatus.STARTING,
        Runtime.BACKOFF: BackendStatus.STARTING,
        Runtime.RUNNING: BackendStatus.RUNNING,
        Runtime.STOPPING: BackendStatus.STOPPING,
    }
)


def backend_status(
    installation: Installation, runtime: Runtime, *, start_tried: bool
) -> BackendStatus:
    """Name a pair of states as the API reference does.

    `start_tried` says whether a start was tried since this kernel came up: it tells `Stopped`
    from `Installed`.
    """
    if installation in (Installation.ABSENT, Installation.BROKEN):
        return BackendStatus.NOT_INSTALLED
    if installation is Installation.INSTALLING:
        return BackendStatus.INSTALLING
    if runtime in _WHILE_UP:
        return _WHILE_UP[runtime]
    if installation is Installation.UPGRADING:
        return BackendStatus.INSTALLING
    return BackendStatus.STOPPED if start_tried else BackendStatus.INSTALLED


def is_set_up(installation: Installation) -> bool:
    """Whether the engine can be started; a failed start never changes it."""
    return installation in (Installation.INSTALLED, Installation.UPGRADING)
