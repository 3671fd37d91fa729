"""What every test can count on."""

from __future__ import annotations

import signal
from typing import Any

USUAL: dict[str, Any] = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGHUP": signal.SIG_DFL,
}


def pytest_configure() -> None:
    """Take signals as they are at a terminal.

    A shell starts background jobs with SIGINT ignored, and `nohup` ignores SIGHUP; children inherit
    that, and tests which interrupt a program would wait for ever.
    """
    for name, handler in USUAL.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
