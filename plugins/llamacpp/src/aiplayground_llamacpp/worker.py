"""The worker process: `python -m aiplayground_llamacpp.worker --fd N`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from aiplayground.serving.engine import Engine
from aiplayground.serving.worker import run

if TYPE_CHECKING:
    from .settings import Settings


def main() -> NoReturn:
    """Serve GGUF models until the kernel ends this process."""
    # Scanning every installed package for plugins of pydantic costs time and nobody has any.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Else a native abort would start a debugger and flood the log.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    run(make_engine)


def make_engine(settings: Mapping[str, Any]) -> Engine:
    """Make the engine; raises `InvalidSettings` naming what is wrong with the settings."""
    from .engine import LlamaEngine

    return LlamaEngine(parse_settings(settings), _print_line)


def parse_settings(settings: Mapping[str, Any]) -> Settings:
    """Return the settings; raises `InvalidSettings` naming what is wrong with them."""
    from pydantic import ValidationError

    from aiplayground.errors import InvalidSettings

    from .settings import Settings

    try:
        return Settings.model_validate(settings)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = ".".join(map(str, found["loc"]))
        raise InvalidSettings(f"Setting '{field}': {found['msg']}.") from error


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a worker's log is its stderr


if __name__ == "__main__":
    main()
