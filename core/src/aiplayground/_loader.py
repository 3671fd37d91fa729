"""Discovery: entry points to plugins, each one isolated from the others.

A plugin that fails to import or to validate never takes the kernel down: it becomes a
`PluginFailure` that names the distribution, and the rest is loaded.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from . import __version__, hookspecs
from ._deprecations import hook_notes
from ._hook_api import judge, stated
from ._hooks import backends_of, check_registered, implementations, is_function, validate
from .errors import PluginError
from .hookspecs import ENTRY_POINT_GROUP, PROJECT
from .specs import BackendSpec

MANIFEST_NAME = "aiplayground.toml"
"""What a manifest is called in a package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFailure:
    """A plugin that could not be used, and why; `stage` is `import`, `validate` or `backend`.

    `hook_api`: the numbers of the contract that it was built for; empty if that is not known.
    """

    name: str
    distribution: str
    version: str
    stage: str
    message: str
    hook_api: tuple[int, ...] = ()
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlugin:
    """A plugin in use; `seconds` is what loading it took.

    `hook_api`: the numbers of the contract that it was built for. `notes`: what its author should
    know: changes of the contract since, and deprecated hooks. `source`: the file of a manifest, or
    `settings` for an address that is set there.
    """

    name: str
    plugin: Any = field(repr=False)
    distribution: str
    version: str
    hooks: tuple[str, ...]
    backends: tuple[BackendSpec, ...]
    seconds: float
    hook_api: tuple[int, ...] = (hookspecs.HOOK_API,)
    notes: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSet:
    """What discovery found. `manager` holds the registered plugins, in order."""

    loaded: tuple[LoadedPlugin, ...]
    failures: tuple[PluginFailure, ...]
    disabled: tuple[str, ...]
    manager: pluggy.PluginManager = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The names of all plugins that were found, in use or not."""
        return [each.name for each in self.loaded] + [
            *(each.name for each in self.failures),
            *self.disabled,
        ]

    @property
    def owners(self) -> dict[str, str]:
        """The services, each with the name of the plugin that brings it."""
        return {spec.name: each.name for each in self.loaded for spec in each.backends}


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint | None = None
    plugin: Any = None
    source: str = ""

    @property
    def origin(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        return package or self.source or "the embedding program"

    def failure(
        self, stage: str, message: str, error: BaseException, hook_api: tuple[int, ...]
    ) -> PluginFailure:
        return PluginFailure(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            stage=stage,
            message=message,
            hook_api=hook_api,
            error=error,
        )


def installed() -> Iterator[_Candidate]:
    """Yield each entry point of our group once, in a stable order."""
    found: dict[tuple[str, str, str], _Candidate] = {}
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = point.dist
        name, version = (dist.name, dist.version) if dist is not None else ("", "")
        # A distribution on the path twice (an editable install beside a wheel) counts once.
        found.setdefault(
            (point.name, name, point.value), _Candidate(point.name, name, version, point)
        )
    yield from sorted(found.values(), key=lambda each: (each.name, each.distribution))


def _manifests(folder: Path | None) -> Iterator[_Candidate]:
    files = sorted(folder.glob("*.toml")) if folder is not None else []
    for file in files:
        yield _Candidate(file.stem, "", "", None, file, str(file))


def load_plugins(
    given: Sequence[tuple[str, Any]] = (),
    *,
    discover: bool = True,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] = (),
    endpoints: Sequence[tuple[str, Any]] = (),
    manifests: Path | None = None,
) -> PluginSet:
    """Load the plugins that were handed over and, if asked, those that are installed.

    `allow` names the only plugins to import, `deny` those never to; what is not to be loaded is
    not imported. A name or a service that two plugins claim is refused, naming both. `endpoints`
    are addresses in the settings, each a backend unless a plugin has a service of that name;
    `manifests` is a folder with backends of one file each, named as the file is.
    """
    allowed, denied = None if allow is None else set(allow), set(deny)
    candidates = [_Candidate(name, "", "", None, plugin) for name, plugin in given]
    disabled: list[str] = []
    found = [*installed(), *_manifests(manifests)] if discover else []
    for candidate in found:
        if candidate.name in denied or (allowed is not None and candidate.name not in allowed):
            disabled.append(candidate.name)
        else:
            candidates.append(candidate)
    last = [_Candidate(name, "", "", None, plugin, "settings") for name, plugin in endpoints]
    return _load_all(candidates, last, disabled)


def _load_all(
    candidates: list[_Candidate], endpoints: list[_Candidate], disabled: list[str]
) -> PluginSet:
    manager = _manager()
    loaded: list[LoadedPlugin] = []
    failures: list[PluginFailure] = []
    claimed: dict[str, _Candidate] = {}
    for candidate in [*candidates, *endpoints]:
        if candidate in endpoints and f"service '{candidate.name}'" in claimed:
            continue  # that backend itself is attached to the address
        outcome = _load_one(candidate, manager, claimed)
        if isinstance(outcome, LoadedPlugin):
            loaded.append(outcome)
            continue
        failures.append(outcome)
        # pluggy 1.6 leaves a plugin that it refused half-registered: start from the good ones.
        manager = _manager()
        for good in loaded:
            manager.register(good.plugin, good.name)
    return PluginSet(
        loaded=tuple(loaded), failures=tuple(failures), disabled=tuple(disabled), manager=manager
    )


def _manager() -> _Manager:
    manager = _Manager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


class _Manager(pluggy.PluginManager):
    """Passes over properties: pluggy 1.6 evaluates them when it looks for hooks.

    `checked` are the functions behind hooks that are known to be right: many plugins may be
    instances of one class.
    """

    def __init__(self, project: str) -> None:
        super().__init__(project)
        self.checked: set[tuple[str, Any]] = set()

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        if name.startswith("__") or not is_function(plugin, name):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def _load_one(
    candidate: _Candidate, manager: _Manager, claimed: dict[str, _Candidate]
) -> LoadedPlugin | PluginFailure:
    began = time.perf_counter()
    stage = "import"
    numbers: tuple[int, ...] = ()
    try:
        _claim(f"plugin '{candidate.name}'", candidate, claimed)
        point = candidate.entry_point
        plugin = _as_plugin(candidate.plugin if point is None else point.load())
        stage = "validate"
        numbers = stated(plugin)
        notes = _check_hook_api(plugin, numbers)
        hooks = validate(plugin, manager.checked)
        manager.register(plugin, candidate.name)
        check_registered(plugin, hooks, manager)
        stage = "backend"
        backends = backends_of(hooks)
        for spec in backends:
            _claim(f"service '{spec.name}'", candidate, claimed)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001  # SystemExit at import must not end the kernel
        for what in [what for what, holder in claimed.items() if holder is candidate]:
            del claimed[what]  # another plugin may have what this one cannot use
        return candidate.failure(stage, _explain(candidate, stage, error), error, numbers)
    return LoadedPlugin(
        name=candidate.name,
        plugin=plugin,
        distribution=candidate.distribution,
        version=candidate.version,
        hooks=tuple(sorted(hooks)),
        backends=backends,
        seconds=time.perf_counter() - began,
        hook_api=numbers,
        notes=(*notes, *hook_notes(hooks, f"{candidate.name} ({candidate.origin})")),
        source=candidate.source,
    )


def _as_plugin(found: Any) -> Any:
    """Return the plugin that a manifest describes, where that is what was found.

    A manifest is a path, or lies in a package that defines no hook.
    """
    file = found if isinstance(found, Path) else None
    for folder in getattr(found, "__path__", ()) if inspect.ismodule(found) else ():
        if (beside := Path(folder) / MANIFEST_NAME).is_file() and not any(implementations(found)):
            file = beside
            break
    if file is None:
        return found
    from .manifest import load_manifest

    return load_manifest(file)


def _explain(candidate: _Candidate, stage: str, error: BaseException) -> str:
    if isinstance(error, PluginError):
        # What is wrong with a manifest begins with its file.
        told = error.message.startswith(candidate.origin)
        return f"{candidate.name}{'' if told else f' ({candidate.origin})'}: {error.message}"
    doing = {
        "import": "importing it",
        "validate": "registering it",
        "backend": "its hook 'backend'",
    }
    return (
        f"{candidate.name} ({candidate.origin}): {doing[stage]} raised "
        f"{type(error).__name__}: {error}.{_asked_for(candidate, error)} Update or uninstall that "
        f"distribution, or name the plugin in the setting 'plugins.deny', as "
        f"`aipg plugins disable {candidate.name}` does."
    )


def _asked_for(candidate: _Candidate, error: BaseException) -> str:
    """Say which kernel a plugin asks for that misses something of this one."""
    missing = error.name or "" if isinstance(error, ImportError) else ""
    dist = candidate.entry_point.dist if candidate.entry_point else None
    if dist is None or missing.partition(".")[0] != PROJECT:
        return ""
    asked = [one for one in dist.requires or () if re.split(r"[^\w-]", one)[0] == PROJECT]
    wants = f" It asks for {asked[0]}." if asked else ""
    return f"{wants} This is {PROJECT} {__version__} with hook API {hookspecs.HOOK_API}."


def _check_hook_api(plugin: Any, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Return what the author of a plugin for another contract is told; raise if it cannot run."""
    marked = implementations(plugin)
    verdict = judge(numbers, {options.get("specname") or name for name, _, options in marked})
    if not verdict.usable:
        raise PluginError(" ".join(verdict.notes))
    return verdict.notes


def _claim(what: str, candidate: _Candidate, claimed: dict[str, _Candidate]) -> None:
    other = claimed.setdefault(what, candidate)
    if other is not candidate:
        raise PluginError(
            f"{what} is claimed by two distributions, {other.origin} and {candidate.origin}; "
            f"the first is used. Uninstall one of them."
        )
