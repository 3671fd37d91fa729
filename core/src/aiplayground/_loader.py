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
from ._logs import KERNEL
from .errors import PluginError
from .hookspecs import ENTRY_POINT_GROUP, PROJECT
from .specs import BackendSpec

IMPL_ATTRIBUTE = f"{PROJECT}_impl"
SPEC_ATTRIBUTE = f"{PROJECT}_spec"
MANIFEST_NAME = "aiplayground.toml"
"""What a manifest is called in a package."""

GENERATOR_HOOKS = frozenset({"setup", "chat", "generate"})

HOOKS: dict[str, inspect.Signature] = {
    name: inspect.signature(function)
    for name, function in vars(hookspecs).items()
    if hasattr(function, SPEC_ATTRIBUTE)
}
COROUTINE_HOOKS = frozenset(
    name for name in HOOKS if inspect.iscoroutinefunction(getattr(hookspecs, name))
)


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
        if name.startswith("__") or not _is_function(plugin, name):
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
        hooks = _validate(plugin, manager.checked)
        manager.register(plugin, candidate.name)
        _check_registered(plugin, hooks, manager)
        stage = "backend"
        backends = _backends(hooks)
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
        if (beside := Path(folder) / MANIFEST_NAME).is_file() and not any(_implementations(found)):
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
    marked = _implementations(plugin)
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


def _validate(plugin: Any, checked: set[tuple[str, Any]]) -> dict[str, Any]:
    """Return the plugin's hook implementations; raise `PluginError` for what cannot work."""
    if inspect.isclass(plugin):
        raise PluginError(
            f"it is the class {plugin.__name__}; register an instance of it or a module, "
            f"otherwise each hook misses 'self'."
        )
    hooks: dict[str, Any] = {}
    for name, function, options in _implementations(plugin):
        hook = options.get("specname") or name
        if hook not in HOOKS:
            if not options.get("optionalhook"):
                raise PluginError(f"hook '{hook}' is not one that this kernel knows.")
            continue
        key = (hook, getattr(function, "__func__", function))
        if key not in checked:
            _check_function(hook, function, options)
            checked.add(key)
        hooks[hook] = function
    if not hooks:
        raise PluginError(
            "it implements no hook. Mark its functions with @hookimpl from aiplayground.hookspecs."
        )
    return hooks


def _implementations(plugin: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    names = vars(plugin) if inspect.ismodule(plugin) else dir(plugin)
    for name in list(names):
        if name.startswith("__") or not _is_function(plugin, name):
            continue
        function = getattr(plugin, name)
        # The mark may be above `@staticmethod` or `@classmethod`.
        static = inspect.getattr_static(plugin, name)
        options = getattr(function, IMPL_ATTRIBUTE, None) or getattr(static, IMPL_ATTRIBUTE, None)
        if isinstance(options, dict):
            yield name, function, options


def _is_function(plugin: Any, name: str) -> bool:
    # getattr_static: looking at a plugin must not run its properties.
    static = inspect.getattr_static(plugin, name, None)
    return isinstance(static, staticmethod | classmethod) or callable(static)


def _check_registered(plugin: Any, hooks: Iterable[str], manager: pluggy.PluginManager) -> None:
    """Refuse what pluggy passed over: it would never be called, and nobody would know why."""
    for hook in hooks:
        impls = getattr(manager.hook, hook).get_hookimpls()
        if not any(each.plugin is plugin for each in impls):
            raise PluginError(f"hook '{hook}' must be a function, not an object that is called.")


def _check_function(hook: str, function: Any, options: dict[str, Any]) -> None:
    if options.get("wrapper") or options.get("hookwrapper"):
        raise PluginError(f"hook '{hook}' is a wrapper; use the hook 'register_middleware'.")
    known, own = list(HOOKS[hook].parameters), ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise PluginError(
                f"hook '{hook}' takes '{parameter.name}' by keyword only, or any keyword; hooks "
                f"get positional arguments."
            )
        if parameter.name not in known and parameter.default is parameter.empty:
            raise PluginError(
                f"hook '{hook}' takes '{parameter.name}'; "
                f"it can take {', '.join(known) or 'nothing'}."
            )
        if parameter.name not in known:
            own = parameter.name
        elif own:
            raise PluginError(f"hook '{hook}': put '{own}' behind '{parameter.name}'.")
    _check_kind(hook, function)


def _check_kind(hook: str, function: Any) -> None:
    is_coroutine = inspect.iscoroutinefunction(function)
    is_generator = inspect.isasyncgenfunction(function)
    wrapped = hasattr(function, "__wrapped__")  # what it returns is checked at the first call
    if hook in COROUTINE_HOOKS and not is_coroutine and not (wrapped and not is_generator):
        raise PluginError(f"hook '{hook}' must be a coroutine function: `async def {hook}(...)`.")
    if hook in GENERATOR_HOOKS and (is_coroutine or inspect.isgeneratorfunction(function)):
        raise PluginError(
            f"hook '{hook}' must be an async generator: `async def {hook}(...)` with `yield`."
        )
    if hook not in COROUTINE_HOOKS | GENERATOR_HOOKS and (is_coroutine or is_generator):
        raise PluginError(f"hook '{hook}' must be a plain function: `def {hook}(...)`.")


def wrong_name(service: str) -> str | None:
    """Say why a service cannot have this name, if that is so."""
    if re.fullmatch(r"[a-z][a-z0-9-]{0,63}", service) and service != KERNEL:
        return None
    return (
        f"'{service}' cannot be a service's name: use lower-case letters, digits and '-', "
        f"beginning with a letter, and not '{KERNEL}'."
    )


def _backends(hooks: dict[str, Any]) -> tuple[BackendSpec, ...]:
    if "backend" not in hooks:
        return ()
    returned = hooks["backend"]()
    specs = (returned,) if isinstance(returned, BackendSpec) else tuple(returned)
    for spec in specs:
        if not isinstance(spec, BackendSpec):
            raise PluginError(f"hook 'backend' returned {type(spec).__name__}, not a BackendSpec.")
        if (wrong := wrong_name(spec.name)) is not None:
            raise PluginError(wrong)
    if len({spec.name for spec in specs}) < len(specs):
        raise PluginError("hook 'backend' names one service twice.")
    return specs
