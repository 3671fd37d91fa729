"""What every test can count on."""

from __future__ import annotations

import os
import signal
from typing import Any

USUAL: dict[str, Any] = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGHUP": signal.SIG_DFL,
}


def pytest_configure() -> None:
    """Keep out of the user's keyring, and take signals as they are at a terminal.

    A shell starts background jobs with SIGINT ignored, and `nohup` ignores SIGHUP; children inherit
    that, and tests which interrupt a program would wait for ever.
    """
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
    os.environ.pop("HF_TOKEN", None)
    for name, handler in USUAL.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
