"""What is known of a subject before anything is started: its declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, suggest
from aiplayground.specs import BackendSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .injection import FaultyKernel
    from .subject import Subject

QUICK: Mapping[str, Mapping[str, Any]] = {
    "restart": {"base": 0.02, "cap": 0.05, "jitter": 0.0, "limit": 3},
    "timeouts": {"stop_grace": 2.0, "drain": 0.2, "shutdown": 10.0},
}
"""The settings that make a test short; a subject's own and a rule's go on top."""


ATTACHED = "attached"
"""The service that an address without a backend gets, unless the subject names it."""


class Unusable(Exception):
    """The subject gives no backend to examine; the message says why."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """A backend's declaration. `hooks`: those that it has of its own."""

    spec: BackendSpec
    hooks: frozenset[str]
    plugin: Any = field(repr=False)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay tables over each other, section by section."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            result[key] = merged(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return result


class Maker:
    """Makes kernels with nothing in them but the subject."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @cached_property
    def plugin(self) -> Any:
        """The plugin object, or the path of a manifest; None for an address; raises `Unusable`."""
        if self.subject.manifest is not None:
            return Path(self.subject.manifest)
        if self.subject.plugin is None:
            return None
        try:
            return self.subject.load()
        except Exception as error:
            raise Unusable(f"importing it raised {type(error).__name__}: {error}") from error

    @cached_property
    def facts(self) -> Facts:
        """The declaration; raises `Unusable` when the kernel refuses the plugin."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as home:
            found = self.kernel(home).plugins
        if found.failures:
            raise Unusable(found.failures[0].message)
        backends = {spec.name: loaded for loaded in found.loaded for spec in loaded.backends}
        name = self._service(list(backends))
        loaded = backends[name]
        spec = next(each for each in loaded.backends if each.name == name)
        return Facts(spec=spec, hooks=frozenset(loaded.hooks), plugin=loaded.plugin)

    def _attached(self, url: str | None) -> dict[str, Any]:
        """Return the settings of an attached endpoint: of the backend's service, else one alone."""
        if url is None:
            return {}
        name = self.subject.service
        if self.plugin is None:
            return {"attach": {name or ATTACHED: {"url": url}}}
        if name is None:
            raise Unusable("name the service that is attached: Subject(service=...)")
        return {"services": {name: {"attach": {"url": url}}}}

    def _service(self, names: list[str]) -> str:
        wanted = self.subject.service
        if wanted is None and len(names) == 1:
            return names[0]
        if not names:
            raise Unusable("it declares no backend: it has no hook 'backend'")
        if wanted is None:
            raise Unusable(f"it has several services; set Subject.service to one of: {names}")
        if wanted not in names:
            raise Unusable(f"it has no service '{wanted}'.{suggest(wanted, names)} It has: {names}")
        return wanted

    def kernel(
        self,
        home: Any,
        *,
        gated: bool = False,
        settings: Mapping[str, Any] | None = None,
        attach: str | None = None,
    ) -> FaultyKernel:
        """Return a kernel that is not open yet; raises `Unusable`.

        `attach` takes the place of the subject's own URL.
        """
        from .injection import FaultyKernel

        subject = self.subject
        own: dict[str, Any] = {"timeouts": dict(subject.timeouts)}
        if subject.model_folders:
            own["models"] = {"folders": [str(each) for each in subject.model_folders]}
        attached = self._attached(attach or subject.attach)
        layers = merged(QUICK, subject.settings, settings or {}, attached, own)
        make: Callable[..., FaultyKernel] = FaultyKernel
        plugins = {} if self.plugin is None else {_plain(subject.name): self.plugin}
        try:
            return make(
                home=home,
                plugins=plugins,
                discover=False,
                settings=layers,
                environ={},
                gated=gated,
            )
        except AIPlaygroundError as error:
            raise Unusable(error.message) from error


def _plain(name: str) -> str:
    """Return a plugin's name for the kernel's messages."""
    return Path(name).name.split(".")[0]
