"""A time limit on Python code that cannot be trusted to end."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType


class DeadlineExceeded(BaseException):
    """The code ran too long. No `Exception`: what runs must not be able to catch it."""


class Deadline:
    """Raises `DeadlineExceeded` inside the block after so many seconds.

    It reaches pure Python code between two of its instructions; one long native call delays it.
    Source: `PyThreadState_SetAsyncExc` of Python's C API.
    """

    def __init__(self, seconds: float) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False
        self._fired = False
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over = True
            if self._fired and kind is not DeadlineExceeded:
                _raise_in(self._thread, None)  # it came too late: take it back
        self._timer.cancel()

    def _fire(self) -> None:
        with self._lock:
            if not self._over:
                self._fired = True
                _raise_in(self._thread, DeadlineExceeded)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    target = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)
