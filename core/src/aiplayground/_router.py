"""Dispatch: which function answers a hook for a service, and who is to blame when it fails.

pluggy registers and validates; it is never used to call. A broadcast cannot decline, reaches the
wrong backend with `specname` on pluggy 1.6, and does not say which plugin raised.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from ._hooks import HOOKS
from ._loader import PluginSet
from ._steps import BLOCKED_AFTER, TURN, Pace, resumed, steps_of, watched
from ._threads import in_thread
from .errors import AIPlaygroundError, PluginError
from .specs import BackendSpec

DEFAULT_HOOKS = frozenset({"chat", "generate", "embed", "list_models", "health"})
"""Hooks that the kernel supplies where a backend's worker speaks the OpenAI API."""

Report = Callable[[str, str, float], None]
Hide = Callable[[str], str]
"""Takes the secrets out of a text."""


class Route:
    """One hook of one plugin, ready to be called with the specification's arguments."""

    __slots__ = ("_blocked", "_hide", "_invoke", "_is_coroutine", "default", "hook", "plugin")

    def __init__(
        self,
        plugin: str,
        hook: str,
        function: Callable[..., Any],
        report: Report,
        hide: Hide | None = None,
    ) -> None:
        self.plugin = plugin
        self.hook = hook
        self.default = False
        self._hide = hide
        self._invoke = _positional(hook, function)
        self._is_coroutine = inspect.iscoroutinefunction(function)
        # Made once: this object is passed on with every call and every chunk.
        self._blocked = partial(report, plugin, hook)

    def sync(self, *args: Any) -> Any:
        """Call a plain hook."""
        try:
            return self._invoke(*args)
        except AIPlaygroundError as error:
            self.sign(error)
            raise
        except Exception as error:
            raise self.blame(error) from error

    @types.coroutine
    def call(self, *args: Any) -> Generator[Any, Any, Any]:
        """Await a coroutine hook."""
        # The first step is made here and not in `watched`: most hooks have no other, and one layer
        # less is a quarter of what a call costs.
        began = perf_counter()
        try:
            steps = self._invoke(*args)
            if not self._is_coroutine:
                steps = self._steps_of(steps)
            try:
                waiting_for = steps.send(None)
            except StopIteration as done:
                return done.value
            finally:
                if perf_counter() - began > BLOCKED_AFTER:
                    self._blocked(perf_counter() - began)
            return (yield from resumed(steps, waiting_for, self._blocked))
        except AIPlaygroundError as error:
            self.sign(error)
            raise
        except Exception as error:
            raise self.blame(error) from error

    def _steps_of(self, returned: Any) -> Any:
        if not inspect.isawaitable(returned):
            raise self.wrong("a coroutine", returned)
        return steps_of(returned)

    async def stream(self, *args: Any) -> AsyncGenerator[Any, None]:
        """Iterate an async-generator hook; closing this closes the plugin's generator at once."""
        source: Any = None
        pace = Pace()
        try:
            source = self._invoke(*args)
            if not hasattr(source, "__anext__"):
                raise self.wrong("an async generator", source)
            while True:
                try:
                    item = await watched(steps_of(anext(source)), self._blocked, pace)
                except StopAsyncIteration:
                    return
                yield item
                if perf_counter() - pace.since > TURN:
                    # Neither plugin nor consumer waits for anything: others shall live too.
                    await asyncio.sleep(0)
                    pace.since = perf_counter()
        except AIPlaygroundError as error:
            self.sign(error)
            raise
        except Exception as error:
            raise self.blame(error) from error
        finally:
            if hasattr(source, "aclose"):
                await self._close(source)

    async def _close(self, source: Any) -> None:
        try:
            await source.aclose()
        except AIPlaygroundError as error:
            self.sign(error)
            raise
        except Exception as error:
            raise self.blame(error) from error

    def wrong(self, expected: str, got: Any) -> PluginError:
        """Describe a hook that returned something of another kind."""
        if inspect.iscoroutine(got):
            got.close()
        return PluginError(
            f"{self.plugin}: hook '{self.hook}' returned {type(got).__name__} where {expected} "
            f"is due. This is a defect of the plugin; update or uninstall it.",
            details={"plugin": self.plugin, "hook": self.hook},
        )

    def sign(self, error: AIPlaygroundError) -> None:
        """Give an error of ours the plugin's name and the hook's."""
        error.details.setdefault("plugin", self.plugin)
        error.details.setdefault("hook", self.hook)
        if self._hide is not None:
            # A server may say in its answer which key it was given.
            error.message = self._hide(error.message)
            error.args = (error.message,)
            error.details = hidden(error.details, self._hide)

    def blame(self, error: Exception) -> PluginError:
        """Turn what is no error of ours into one that names the plugin and the hook."""
        text = str(error) if self._hide is None else self._hide(str(error))
        return PluginError(
            f"{self.plugin}: hook '{self.hook}' raised {type(error).__name__}: {text}. "
            f"This is a defect of the plugin; its log has the traceback.",
            details={"plugin": self.plugin, "hook": self.hook, "error": type(error).__name__},
        )


def hidden(value: Any, hide: Hide) -> Any:
    """Return plain data with the secrets taken out of its texts."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: hidden(each, hide) for key, each in value.items()}
    return [hidden(each, hide) for each in value] if isinstance(value, list) else value


def _positional(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as one that takes all of the specification's arguments, in order."""
    known = list(HOOKS[hook].parameters)
    takes = [known.index(name) for name in inspect.signature(function).parameters if name in known]
    if takes == list(range(len(known))):
        return function
    return lambda *args: function(*[args[index] for index in takes])


def _rank(impl: Any) -> int:
    """Order as plugins were registered, but for what `tryfirst` and `trylast` ask."""
    return 0 if impl.tryfirst else 2 if impl.trylast else 1


class Router:
    """The table `(service, hook) -> Route`, and the lists for hooks that ask every plugin.

    `attached` names the services that are endpoints, each with what hides its key. Of their
    backend's own hooks only those that talk to the engine are called, and those of ours before
    them where it speaks the OpenAI API.
    """

    def __init__(
        self,
        plugins: PluginSet,
        report_blocked: Report,
        attached: Mapping[str, Hide] | None = None,
    ) -> None:
        self.specs: dict[str, BackendSpec] = {}
        self._report_blocked = report_blocked
        self._attached = attached or {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._everyone: dict[str, list[Route]] = {hook: [] for hook in HOOKS}
        names = {id(loaded.plugin): loaded for loaded in plugins.loaded}
        for caller in (getattr(plugins.manager.hook, hook) for hook in HOOKS):
            for impl in sorted(caller.get_hookimpls(), key=_rank):
                loaded = names[id(impl.plugin)]
                route = Route(loaded.name, caller.name, impl.function, report_blocked)
                self._everyone[caller.name].append(route)
                for spec in loaded.backends:
                    self.specs[spec.name] = spec
                    if spec.name not in self._attached:
                        self._routes[spec.name, caller.name] = route
                    elif caller.name in DEFAULT_HOOKS and spec.api != "openai":
                        self._routes[spec.name, caller.name] = Route(
                            loaded.name,
                            caller.name,
                            impl.function,
                            report_blocked,
                            self._attached[spec.name],
                        )

    def find(self, service: str, hook: str) -> Route | None:
        """Return the backend's implementation of a hook, else the kernel's default, else None."""
        route = self._routes.get((service, hook))
        if route is None and hook in DEFAULT_HOOKS and self._speaks_openai(service):
            # Imported here: an HTTP client is no part of a kernel that has nothing to talk to.
            from ._openai import DEFAULTS

            hide = self._attached.get(service)
            route = Route(service, hook, DEFAULTS[hook], self._report_blocked, hide)
            route.default = True
            self._routes[service, hook] = route
        return route

    def _speaks_openai(self, service: str) -> bool:
        return service in self._attached or self.specs[service].api == "openai"

    def implements(self, service: str, hook: str) -> bool:
        """Whether the backend brings the hook itself, so that the kernel's default is not used."""
        route = self._routes.get((service, hook))
        return route is not None and not route.default

    def everyone(self, hook: str) -> Iterator[Route]:
        """Yield each plugin's implementation of a hook that is asked of all."""
        yield from self._everyone[hook]

    async def gather(self, hook: str, deadline: float) -> list[tuple[str, Any]]:
        """Ask every plugin in a thread, within `deadline` seconds; failures are values."""
        return [
            (route.plugin, outcome)
            for route, outcome in zip(
                self._everyone[hook],
                await asyncio.gather(
                    *(in_thread(deadline, route.sync) for route in self._everyone[hook]),
                    return_exceptions=True,
                ),
                strict=True,
            )
        ]
