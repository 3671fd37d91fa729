"""What the kernel tells the outside about a service: values, taken at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .states import BackendStatus, Desired, Installation, Runtime, backend_status, is_set_up


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One process (or attached endpoint) of a service; `rss` is in bytes."""

    name: str
    state: Runtime
    primary: bool
    model: str | None
    base_url: str
    pid: int | None
    restarts: int = 0
    error: str | None = None
    attached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """A service at one moment. `as_api` is the shape of the API reference.

    `attached`: it is a server that already runs; the kernel neither starts nor ends it.
    """

    name: str
    title: str
    installation: Installation
    runtime: Runtime
    desired: Desired
    start_tried: bool
    base_url: str
    port: int
    version: str | None
    required: bool
    error: dict[str, Any] | None = None
    workers: tuple[WorkerInfo, ...] = ()
    models: tuple[str, ...] = ()
    attached: bool = False

    @property
    def status(self) -> BackendStatus:
        """The outside name of the pair of states."""
        return backend_status(self.installation, self.runtime, start_tried=self.start_tried)

    @property
    def set_up(self) -> bool:
        """Whether the engine can be started."""
        return is_set_up(self.installation)

    def as_api(self) -> dict[str, Any]:
        """Return `ApiServiceInformation` of the API reference.

        Beyond it: `error` when there is one, and `attached` when that is so.
        """
        info: dict[str, Any] = {
            "name": self.name,
            "baseUrl": self.base_url,
            "port": self.port,
            "currentStatus": self.status.value,
            "isRequired": self.required,
            "isSetUp": self.set_up,
        }
        if self.version is not None:
            info["version"] = self.version
        if self.error is not None:
            info["error"] = self.error
        if self.attached:
            info["attached"] = True
        return info
