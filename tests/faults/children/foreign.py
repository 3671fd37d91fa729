"""A foreign program: ignores SIGTERM, and leaves grandchildren in and out of its session."""

from __future__ import annotations

import os
import signal
import subprocess
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
SLEEPER = ["sh", "-c", "trap '' TERM; sleep 3600 & wait"]


def daemonise() -> None:
    """Start a sleeper that leaves session and parent behind: the classic double fork."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp(SLEEPER[0], SLEEPER)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    subprocess.Popen(SLEEPER)
    subprocess.Popen(SLEEPER, start_new_session=True)
    daemonise()
    print("up", flush=True)
    while True:
        time.sleep(3600)
