"""What happens in a kernel, as values. `Kernel.subscribe` delivers them.

Each event is frozen and carries `seq`, a number that grows by one with each event of its kernel:
a gap shows what a subscriber missed. `outside` is the event's name in the API reference, where it
has one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .status import ServiceInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `time` is in seconds since the epoch."""

    outside: ClassVar[str | None] = None
    lifecycle: ClassVar[bool] = False

    seq: int = 0
    time: float = field(default_factory=time.time)

    @property
    def key(self) -> object | None:
        """What a coalescing subscriber keeps only the newest of; None: never coalesced."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSetUpProgress(Event):
    """A step of an installation (`SetupProgress` of the API reference); progress is 0 to 100."""

    outside: ClassVar[str | None] = "serviceSetUpProgress"

    service: str
    stage: str
    progress: float
    message: str = ""

    @property
    def key(self) -> object | None:
        """Only the newest step of a service's installation matters."""
        return (type(self), self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfoUpdate(Event):
    """A service changed; `services` holds all of them, as `getServices` does."""

    outside: ClassVar[str | None] = "serviceInfoUpdate"
    lifecycle: ClassVar[bool] = True

    service: str
    services: tuple[ServiceInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServiceExit(Event):
    """A worker went away that nobody stopped; `exit_code` is negative for a signal."""

    outside: ClassVar[str | None] = "webServiceExit"
    lifecycle: ClassVar[bool] = True

    service: str
    worker: str
    exit_code: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDownloadProgress(Event):
    """A download moved on; `progress` is 0 to 100, `downloaded` and `total` are in bytes.

    `status` is `queued`, `resolving`, `waiting`, `downloading`, `verifying`, or one of the last:
    `complete`, `cancelled`, `error`. `message` says why it waits or failed.
    """

    outside: ClassVar[str | None] = "modelDownloadProgress"

    filename: str
    progress: float
    speed: str | None = None
    eta: str | None = None
    id: str | None = None
    repo: str | None = None
    status: str | None = None
    downloaded: int | None = None
    total: int | None = None
    message: str | None = None

    @property
    def key(self) -> object | None:
        """Only the newest figure of a download matters."""
        return (type(self), self.id or self.filename)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded(Event):
    """A model is in memory and answers."""

    lifecycle: ClassVar[bool] = True

    service: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnloaded(Event):
    """A model left memory; `reason` is `idle`, `evicted`, `asked`, `stopped` or `crashed`."""

    lifecycle: ClassVar[bool] = True

    service: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsChanged(Event):
    """Models came, went or changed on the disk: list them again; `count` is how many are there.

    Folders are watched while somebody subscribes to this kind of event by name.
    """

    count: int

    @property
    def key(self) -> object | None:
        """Only the newest matters."""
        return type(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """A hook held the event loop for longer than the limit; `seconds` says how long."""

    plugin: str
    hook: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStopping(Event):
    """The kernel refuses new work and begins to shut down."""

    lifecycle: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStopped(Event):
    """All services have stopped; the last event of a kernel."""

    lifecycle: ClassVar[bool] = True

    unfinished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Event):
    """The first event of each subscription: where everything stands."""

    lifecycle: ClassVar[bool] = True

    services: tuple[ServiceInfo, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
