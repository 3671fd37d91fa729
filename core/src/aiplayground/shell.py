"""The window that shows a page, and its dialogs: what hosts them is a shell.

A shell is a program with a window (an Electron or webview application). It attaches itself in the
kernel's process (`Kernel.attach_shell`, or the hook `register_shell`), or connects over IPC with
the method `registerShell`. The one that came last is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from .errors import AIPlaygroundError, PluginError, ServiceNotAvailable

if TYPE_CHECKING:
    from .kernel import Kernel

DIALOG_PATIENCE = 3600.0
"""Seconds for which a person may look at a dialog."""

WINDOW_PATIENCE = 10.0
"""Seconds in which a window must have done what it was asked for."""


class Shell(Protocol):
    """What a shell can do; it may leave out methods. Options and results are plain data."""

    async def show_open_dialog(self, options: Mapping[str, Any]) -> Sequence[str] | None:
        """Let the user choose; `options` is `OpenDialogOptions`. None if nothing was chosen."""

    async def show_save_dialog(self, options: Mapping[str, Any]) -> str | None:
        """Let the user name a file; `options` is `SaveDialogOptions`. None if none was named."""

    async def mini_window(self) -> None:
        """Make the window small."""

    async def set_full_screen(self, fullscreen: bool) -> None:
        """Let the window fill the screen, or no longer."""

    async def exit_app(self) -> None:
        """Close the window and end the program."""


ACTIONS = ("show_open_dialog", "show_save_dialog", "mini_window", "set_full_screen", "exit_app")


class Shells:
    """The shells of one kernel; those of plugins are made at the first call."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._attached: list[Any] = []
        self._looked = False

    def attach(self, shell: Any) -> Callable[[], None]:
        """Take a shell in; returns what takes it out again."""
        self._attached.append(shell)

        def detach() -> None:
            self._attached = [each for each in self._attached if each is not shell]

        return detach

    async def ask(self, action: str, *arguments: Any, patience: float = WINDOW_PATIENCE) -> Any:
        """Let the shell do something; raises `ServiceNotAvailable` if there is none that can."""
        work = self._find(action)
        try:
            async with asyncio.timeout(patience):
                return await work(*arguments)
        except TimeoutError:
            raise ServiceNotAvailable(
                f"The window did not answer within {patience:g} s.", details={"action": action}
            ) from None
        except AIPlaygroundError:
            raise
        except Exception as error:
            raise PluginError(
                f"The window failed on '{action}': {error!r}.", details={"action": action}
            ) from error

    def _find(self, action: str) -> Callable[..., Awaitable[Any]]:
        if not self._looked:
            self._looked = True
            # Before those that attached themselves: they know better which window is open.
            self._attached = [*self._of_plugins(), *self._attached]
        for shell in reversed(self._attached):
            work: Callable[..., Awaitable[Any]] | None = getattr(shell, action, None)
            if work is not None:
                return work
        raise ServiceNotAvailable(
            "This needs the program's window, and none is attached: the kernel runs without one "
            "here. A shell provides it (hook 'register_shell', or the IPC method 'registerShell').",
            details={"reason": "no-shell"},
        )

    def _of_plugins(self) -> list[Any]:
        found: list[Any] = []
        for plugin, reference in self._kernel.brought("register_shell"):
            if reference is None:
                continue
            try:
                module, _, name = str(reference).partition(":")
                found.append(getattr(import_module(module), name)(self._kernel))
            except Exception as error:  # noqa: BLE001  # a shell that fails is as good as none
                self._kernel.log().logger.error(
                    "%s: its shell '%s' cannot be used: %r", plugin, reference, error
                )
        return found
