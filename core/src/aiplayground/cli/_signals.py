"""Ctrl-C and SIGTERM: the first ends the work cleanly, a second one ends it at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """The signal handlers of a run, in place while it is entered.

    asyncio.Runner knows Ctrl-C alone; a SIGTERM or a closed terminal must end the workers as well,
    and in a conversation Ctrl-C stops the answer rather than the program.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.received: int | None = None
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._instead: Callable[[], object] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                # What is ignored (nohup, a shell's background job) stays ignored.
                if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Name the task that a signal cancels."""
        self._task = task

    @contextmanager
    def divert(self, instead: Callable[[], object]) -> Iterator[None]:
        """Let Ctrl-C do something else meanwhile, as often as it comes."""
        self._instead = instead
        try:
            yield
        finally:
            self._instead = None

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and self._instead is not None:
            self._loop.call_soon_threadsafe(self._instead)
        elif self.received is not None:
            # The clean way takes too long for whoever asks twice. The kernel's clean-up at
            # interpreter exit still ends the workers.
            raise KeyboardInterrupt
        else:
            self.received = signum
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
