"""Runs a worker's command with something wrong about it, then becomes that command.

Arguments: the options as JSON, `--`, the command. Options: `chatter` (log this many lines, each
after `pause` seconds), `garbage` (bytes of what is no text, on stdout), `helper` (a file in which
to note the process id of a helper that holds our pipes, ignores SIGTERM and has a session of its
own), `exit` (end with this code), `hold` (never run the command).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GARBAGE = b'\x00\xff\xfe\x1b[31m {"broken": \xc3\r\n{"level": 7, "msg": nothing}\n\xed\xa0\x80'
HELPER = "trap '' TERM HUP; while :; do sleep 1; done"


def misbehave(options: dict[str, Any]) -> None:
    """Do what goes before the command; may not return."""
    if "garbage" in options:
        times = int(options["garbage"]) // len(GARBAGE) + 1
        sys.stdout.buffer.write(GARBAGE * times + b"\n")
        sys.stdout.buffer.flush()
    if "helper" in options:
        helper = subprocess.Popen(["sh", "-c", HELPER], start_new_session=True)
        Path(options["helper"]).write_text(str(helper.pid), encoding="ascii")
        helper.returncode = 0  # it is not ours to wait for: the command takes our place
    for number in range(int(options.get("chatter", 0))):
        time.sleep(float(options.get("pause", 0)))
        sys.stderr.write(f"getting ready, step {number}\n")
        sys.stderr.flush()
    if "exit" in options:
        sys.exit(int(options["exit"]))
    while options.get("hold"):
        time.sleep(3600)


def main() -> None:
    """Misbehave, then run the command in our place."""
    misbehave(json.loads(sys.argv[1]))
    command = sys.argv[3:]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
