"""What every test can count on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take SIGINT as it is at a terminal.

    A shell starts background jobs with SIGINT ignored, and children inherit that: tests which
    interrupt a program would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
