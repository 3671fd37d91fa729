"""What plugins bring to a kernel through the hooks that are asked of all of them.

One that fails, or brings what the hook does not allow, is logged and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import AIPlaygroundError
from .specs import Device

if TYPE_CHECKING:
    import logging

    from ._router import Router


class Contributions:
    """What the plugins of one kernel bring. `logger` returns the kernel's."""

    def __init__(self, router: Router, logger: Callable[[], logging.Logger]) -> None:
        self._router = router
        self._logger = logger

    def each(self, hook: str) -> list[tuple[str, Any]]:
        """Return what each plugin brings, with the plugin's name."""
        found: list[tuple[str, Any]] = []
        for route in self._router.everyone(hook):
            try:
                found.append((route.plugin, route.sync()))
            except AIPlaygroundError as error:
                self._logger().error("%s", error.message, exc_info=error)
        return found

    def together(self, hook: str) -> list[Any]:
        """Return what the plugins bring, in one list."""
        found: list[Any] = []
        for plugin, brought in self.each(hook):
            if isinstance(brought, Sequence) and not isinstance(brought, str):
                found.extend(brought)
            else:
                self._logger().error(
                    "%s: hook '%s' must return a sequence, not %r.", plugin, hook, brought
                )
        return found

    async def devices(self, limit: float) -> list[tuple[str, Sequence[Device]]]:
        """Ask every plugin for its devices, in threads, within `limit` seconds."""
        found: list[tuple[str, Sequence[Device]]] = []
        for plugin, answer in await self._router.gather("detect_devices", limit):
            if isinstance(answer, Sequence) and all(isinstance(each, Device) for each in answer):
                found.append((plugin, answer))
            else:
                self._logger().warning("%s: no devices: %r", plugin, answer)
        return found
