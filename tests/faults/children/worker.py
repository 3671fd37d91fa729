"""One of our own workers: the same unpleasant tree, but watching its parent."""

from __future__ import annotations

import subprocess
import time
from importlib import import_module

from aiplayground.serving.parent import watch_parent

assert watch_parent()

foreign = import_module("foreign")  # a worker watches before it imports anything heavy

if __name__ == "__main__":
    subprocess.Popen(foreign.SLEEPER)
    subprocess.Popen(foreign.SLEEPER, start_new_session=True)
    foreign.daemonise()
    print("up", flush=True)
    while True:
        time.sleep(3600)
