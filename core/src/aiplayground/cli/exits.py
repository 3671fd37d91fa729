"""The exit codes of `aipg`, as its help documents them."""

from __future__ import annotations

from typing import Final

OK: Final = 0
ERROR: Final = 1
"""What was asked for failed, or `doctor` found something that must be mended."""
USAGE: Final = 2
"""The command line itself is wrong: an unknown command or option, a missing argument."""
NOT_RUNNING: Final = 3
"""The command acts on a running kernel, and none runs."""
INTERRUPTED: Final = 130
"""Ctrl-C, as shells count it: 128 and the number of SIGINT."""
TERMINATED: Final = 143
"""SIGTERM, as shells count it."""

SUMMARY: Final = (
    "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 no kernel is running; "
    "130 interrupted with Ctrl-C; 143 terminated."
)


class NotRunning(Exception):
    """The command needs a running kernel; the message says what to do."""


class Interrupted(Exception):
    """The work was ended by a signal, and cleaned up after itself."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by signal {signum}")
        self.exit_code = 128 + signum
