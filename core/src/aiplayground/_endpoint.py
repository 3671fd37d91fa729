"""An endpoint of the settings (`[attach.NAME]`) as a plugin: a backend without a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .hookspecs import hookimpl
from .specs import BackendSpec

if TYPE_CHECKING:
    from .settings import EndpointSettings, KernelSettings


class Endpoint:
    """Says who the backend is; all else is the kernel's, which talks to the address."""

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self._spec = BackendSpec(
            name=name,
            title=settings.title or name,
            description=f"The server at {settings.url}",
            capabilities=frozenset(settings.capabilities),
            parameters=frozenset(settings.parameters),
            api="openai",
        )

    @hookimpl
    def backend(self) -> BackendSpec:
        """Say who this backend is."""
        return self._spec


def endpoints(settings: Mapping[str, EndpointSettings]) -> list[tuple[str, Endpoint]]:
    """Return the plugins that a kernel's settings make of addresses alone."""
    return [(name, Endpoint(name, each)) for name, each in settings.items()]


def attached_keys(settings: KernelSettings, services: Iterable[str]) -> dict[str, list[str]]:
    """Return those of the services that are attached, each with its key, if it has one."""
    found: dict[str, list[str]] = {}
    for name in services:
        attachment = settings.attachment(name)
        if attachment is not None:
            key = attachment.api_key
            found[name] = [key.get_secret_value()] if key is not None else []
    return found
