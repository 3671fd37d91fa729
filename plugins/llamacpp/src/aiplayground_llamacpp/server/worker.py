"""The worker process: `python -m aiplayground_llamacpp.server.worker --fd N`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from aiplayground.errors import AIPlaygroundError
from aiplayground.serving.engine import Engine
from aiplayground.serving.worker import report_failure, run

ANSWER_TIME = 0.5
"""Seconds in which the requests in progress are told that the engine is gone."""


def main() -> NoReturn:
    """Serve GGUF models until the kernel ends this process."""
    # Scanning every installed package for plugins of pydantic costs time and nobody has any.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    run(make_engine)


def make_engine(settings: Mapping[str, Any]) -> Engine:
    """Make the engine; raises `InvalidSettings` naming what is wrong with the settings."""
    from aiplayground_llamacpp.worker import parse_settings

    from .engine import ServerEngine

    return ServerEngine(parse_settings(settings), _print_line, _give_up)


def _give_up(error: AIPlaygroundError) -> None:
    """End the worker, which has lost its model; the kernel starts it anew."""
    report_failure(error)
    asyncio.get_running_loop().call_later(ANSWER_TIME, _end)


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a worker's log is its stderr


if __name__ == "__main__":
    main()
