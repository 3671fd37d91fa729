"""The fetcher's life: read a job, do it, say how it ended."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from aiplayground.errors import AIPlaygroundError, ErrorCode

from .job import Job
from .report import Reporter


def main() -> int:
    """Do the job of the standard input; returns the exit code."""
    reporter = Reporter()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    threading.Thread(target=_watch_owner, name="owner", daemon=True).start()
    job = Job.load(line)
    reporter.tick()
    try:
        from .work import work

        work(job, reporter)
    except AIPlaygroundError as error:
        reporter.tell("error", error=error.to_dict())
    except Exception as error:  # noqa: BLE001  # the outermost place of this process: told to its owner
        message = f"The download failed unexpectedly ({type(error).__name__}: {error})."
        body = {"code": int(ErrorCode.GENERIC), "message": message, "details": {}}
        reporter.tell("error", error=body)
    return 0


def _watch_owner() -> None:
    """End with whoever started this: the pipe has its end then."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        code = main()
        # Threads of other files may still wait for the network; nothing of theirs is lost.
        sys.stdout.flush()
        os._exit(code)
