"""Events as programs outside see them: names, shapes, and how they come from the kernel's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import api, events
from .api import ApiServiceInformation


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One kind of event: `shape` is what its listeners get, made by `make` from the kernel's event.

    `positional` names the fields that a listener in a page gets as separate arguments.
    """

    name: str
    shape: Any
    make: Callable[[Any], Any]
    summary: str
    positional: tuple[str, ...] = ()

    @property
    def listener(self) -> str:
        """The name of the method that listens, in a page."""
        return f"on{self.name[:1].upper()}{self.name[1:]}"

    def data(self, event: events.Event) -> Any:
        """Return the event as plain data."""
        made = self.make(event)
        if isinstance(made, list):
            return [plain(each) for each in made]
        return plain(made)


def plain(shape: api.Answer) -> dict[str, Any]:
    """Return an answer as JSON has it."""
    return shape.model_dump(mode="json", by_alias=True, exclude_none=True)


def _progress(event: events.ServiceSetUpProgress) -> api.SetupProgress:
    return api.SetupProgress(
        service_name=event.service,
        stage=event.stage,
        progress=event.progress,
        message=event.message or None,
    )


def _services(event: events.ServiceInfoUpdate) -> list[ApiServiceInformation]:
    return [ApiServiceInformation.of(each) for each in event.services]


def _exit(event: events.WebServiceExit) -> api.ServiceExit:
    return api.ServiceExit(
        service_name=event.service, code=event.exit_code, message=event.message or None
    )


def _download(event: events.ModelDownloadProgress) -> api.DownloadProgress:
    return api.DownloadProgress(
        filename=event.filename,
        progress=event.progress,
        speed=event.speed,
        eta=event.eta,
        id=event.id,
        repo=event.repo,
        status=event.status,
        downloaded=event.downloaded,
        total=event.total,
        message=event.message,
    )


def _model(event: events.ModelLoaded | events.ModelUnloaded) -> api.ModelChange:
    reason = getattr(event, "reason", None)
    return api.ModelChange(service_name=event.service, model=event.model, reason=reason)


def _listing(event: events.ModelsChanged) -> api.ModelsChange:
    return api.ModelsChange(count=event.count)


def _moment(_: events.Event) -> api.Moment:
    return api.Moment()


NOTICES: Mapping[type[events.Event], Notice] = MappingProxyType(
    {
        events.ServiceSetUpProgress: Notice(
            name="serviceSetUpProgress",
            shape=api.SetupProgress,
            make=_progress,
            summary="A step of an installation.",
        ),
        events.ServiceInfoUpdate: Notice(
            name="serviceInfoUpdate",
            shape=list[ApiServiceInformation],
            make=_services,
            summary="A service changed; all of them, as `getServices` returns them.",
        ),
        events.WebServiceExit: Notice(
            name="webServiceExit",
            shape=api.ServiceExit,
            make=_exit,
            positional=("serviceName", "code"),
            summary="A service's worker went away that nobody stopped.",
        ),
        events.ModelDownloadProgress: Notice(
            name="modelDownloadProgress",
            shape=api.DownloadProgress,
            make=_download,
            summary="A download moved on.",
        ),
        events.ModelLoaded: Notice(
            name="modelLoaded",
            shape=api.ModelChange,
            make=_model,
            summary="A model is in memory and answers.",
        ),
        events.ModelUnloaded: Notice(
            name="modelUnloaded",
            shape=api.ModelChange,
            make=_model,
            summary="A model left memory.",
        ),
        events.ModelsChanged: Notice(
            name="modelsChanged",
            shape=api.ModelsChange,
            make=_listing,
            summary="Models came, went or changed on the disk: `loadModels` lists them.",
        ),
        events.KernelStopping: Notice(
            name="kernelStopping",
            shape=api.Moment,
            make=_moment,
            summary="The kernel takes no new work and begins to shut down.",
        ),
    }
)
"""What is told to the outside, by the kernel's event."""


def services_in(snapshot: events.Snapshot) -> list[dict[str, Any]]:
    """Return the services of a snapshot as `getServices` does."""
    return [plain(ApiServiceInformation.of(each)) for each in snapshot.services]
