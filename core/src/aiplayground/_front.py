"""What the kernel puts before its doors: the method table, shells, devices, pictures."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import InvalidParameters, PluginError, suggest

if TYPE_CHECKING:
    from ._method import Method, Parameters
    from .kernel import Kernel


class Closing(Protocol):
    """What a plugin keeps for a kernel (`Kernel.part`)."""

    async def aclose(self) -> None:
        """End what it does; called before the services stop."""


Part = TypeVar("Part", bound=Closing)


class Parts:
    """What plugins keep for one kernel, by the function that makes it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._made: dict[Callable[[Kernel], Any], Any] = {}

    def get(self, make: Callable[[Kernel], Part]) -> Part:
        """Return what `make` makes of this kernel, the same one each time."""
        if make not in self._made:
            self._made[make] = make(self._kernel)
        found: Part = self._made[make]
        return found

    async def close(self) -> None:
        """Close all, the newest first; one that fails or takes long is logged."""
        limit = self._kernel.settings.timeouts.hook
        for each in reversed(list(self._made.values())):
            try:
                await asyncio.wait_for(each.aclose(), limit)
            except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it is reported
                log = self._kernel.log().logger
                log.error("%s did not close: %r", type(each).__name__, error)
        self._made.clear()


class MethodTable:
    """The methods of one kernel: its own, and those that plugins bring."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._methods: dict[str, Method] | None = None

    def all(self) -> Mapping[str, Method]:
        """Return every method by its outside name."""
        if self._methods is None:
            from .methods import METHODS  # pydantic models, that most programs do without

            self._methods = dict(METHODS)
            for plugin, brought in self._kernel.brought("register_methods"):
                self._take(plugin, brought)
        return self._methods

    async def call(self, name: str, given: Parameters) -> Any:
        """Call a method; raises `InvalidParameters` if there is none of that name."""
        found = self.all().get(name)
        if found is None:
            raise InvalidParameters(
                f"There is no method '{name}'.{suggest(name, self.all())}",
                details={"method": name, "reason": "no-method"},
            )
        return await found(self._kernel, given)

    def _take(self, plugin: str, brought: Any) -> None:
        if not isinstance(brought, Mapping):
            self._refuse(f"{plugin}: register_methods must return a mapping, not {brought!r:.80}.")
            return
        for name, handler in brought.items():
            try:
                self._enter(str(name), handler, plugin)
            except PluginError as error:
                self._refuse(error.message)

    def _enter(self, name: str, handler: Any, plugin: str) -> None:
        from ._method import Method

        assert self._methods is not None
        there = self._methods.get(name)
        if there is not None and there.waits_for is None:
            owner = there.plugin or "the kernel"
            raise PluginError(f"{plugin}: method '{name}' is {owner}'s already.")
        if not inspect.iscoroutinefunction(handler):
            raise PluginError(f"{plugin}: method '{name}' must be a coroutine function.")
        group = there.group if there else "Plugins"
        method = Method(name, handler, group, plugin=plugin)
        _ = method.parameters, method.result  # what is wrong with them shows now
        self._methods[name] = method

    def _refuse(self, message: str) -> None:
        self._kernel.log().logger.error("%s It is left out.", message)


async def detach_all(kernel: Kernel) -> None:
    """Let go of what the doors hold when the kernel goes down."""
    await kernel.device_desk.close()
    await asyncio.to_thread(kernel.opener.close)
