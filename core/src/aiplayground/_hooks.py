"""The hooks that there are, and what an implementation must look like to be registered."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pluggy

from . import hookspecs
from .errors import PluginError
from .hookspecs import PROJECT
from .specs import BackendSpec

IMPL_ATTRIBUTE = f"{PROJECT}_impl"
SPEC_ATTRIBUTE = f"{PROJECT}_spec"
RESERVED = "kernel"
"""The name of the kernel's own log."""

GENERATOR_HOOKS = frozenset({"setup", "chat", "generate"})

HOOKS: dict[str, inspect.Signature] = {
    name: inspect.signature(function)
    for name, function in vars(hookspecs).items()
    if hasattr(function, SPEC_ATTRIBUTE)
}
COROUTINE_HOOKS = frozenset(
    name for name in HOOKS if inspect.iscoroutinefunction(getattr(hookspecs, name))
)


def validate(plugin: Any, checked: set[tuple[str, Any]]) -> dict[str, Any]:
    """Return the plugin's hook implementations; raise `PluginError` for what cannot work."""
    if inspect.isclass(plugin):
        raise PluginError(
            f"it is the class {plugin.__name__}; register an instance of it or a module, "
            f"otherwise each hook misses 'self'."
        )
    hooks: dict[str, Any] = {}
    for name, function, options in implementations(plugin):
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


def implementations(plugin: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the name, the function and the options of everything that is marked as a hook."""
    names = vars(plugin) if inspect.ismodule(plugin) else dir(plugin)
    for name in list(names):
        if name.startswith("__") or not is_function(plugin, name):
            continue
        function = getattr(plugin, name)
        # The mark may be above `@staticmethod` or `@classmethod`.
        static = inspect.getattr_static(plugin, name)
        options = getattr(function, IMPL_ATTRIBUTE, None) or getattr(static, IMPL_ATTRIBUTE, None)
        if isinstance(options, dict):
            yield name, function, options


def is_function(plugin: Any, name: str) -> bool:
    """Whether an attribute is something that can be called."""
    # getattr_static: looking at a plugin must not run its properties.
    static = inspect.getattr_static(plugin, name, None)
    return isinstance(static, staticmethod | classmethod) or callable(static)


def check_registered(plugin: Any, hooks: Iterable[str], manager: pluggy.PluginManager) -> None:
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
    if re.fullmatch(r"[a-z][a-z0-9-]{0,63}", service) and service != RESERVED:
        return None
    return (
        f"'{service}' cannot be a service's name: use lower-case letters, digits and '-', "
        f"beginning with a letter, and not '{RESERVED}'."
    )


def backends_of(hooks: dict[str, Any]) -> tuple[BackendSpec, ...]:
    """Return what a plugin says of its backends; raise `PluginError` if that cannot be."""
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
