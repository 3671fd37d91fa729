"""A fetcher process and its owner's end of the pipes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from aiplayground.errors import ServiceNotAvailable

from .fetcher.job import Job

LONGEST_LINE = 2**24
"""Bytes of one message; the list of a repository's files is the longest."""

END_LIMIT = 10.0
"""Seconds that a killed process gets to be gone; more is a defect of the system."""

_DROPPED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")


def environment(source: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return the environment of a fetcher: no token, and the proxy also for native code."""
    env = {name: value for name, value in source.items() if name not in _DROPPED}
    env |= {
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if job.network.proxy:
        env |= {"HTTPS_PROXY": job.network.proxy, "HTTP_PROXY": job.network.proxy}
    if job.network.ca_bundle:
        env["SSL_CERT_FILE"] = job.network.ca_bundle
    return env


async def messages(job: Job, log: Callable[[str], None]) -> AsyncGenerator[dict[str, Any], None]:
    """Run a fetcher and yield what it says; it is killed when the generator is closed.

    What it wrote stays: the next one goes on there. Raises `ServiceNotAvailable` if it dies.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.fetcher"),
        env=environment(os.environ, job),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        start_new_session=True,  # Ctrl-C at a terminal is its owner's to handle
    )
    assert process.stdin is not None
    assert process.stdout is not None
    listener = asyncio.create_task(_listen(process.stderr, log))
    try:
        process.stdin.write(job.dump())
        while line := await process.stdout.readline():
            yield json.loads(line)
        code = await asyncio.wait_for(process.wait(), END_LIMIT)
        if code != 0:
            raise ServiceNotAvailable(
                f"The process that downloads went away (exit code {code}). What came is kept: ask "
                "again, and it goes on there.",
                details={"reason": "fetcher", "exitCode": code},
            )
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        listener.cancel()
        await asyncio.shield(asyncio.wait_for(process.wait(), END_LIMIT))


async def _listen(stream: asyncio.StreamReader | None, log: Callable[[str], None]) -> None:
    while stream is not None and (line := await stream.readline()):
        log(line.decode("utf-8", "replace").rstrip())
