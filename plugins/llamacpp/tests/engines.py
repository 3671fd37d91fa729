"""Both choices of engine in this process, by name."""

from __future__ import annotations

from typing import Any, TypeAlias

from scripts import llama_server

from aiplayground.errors import AIPlaygroundError
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.server.engine import ServerEngine
from aiplayground_llamacpp.settings import Settings

AnyEngine: TypeAlias = LlamaEngine | ServerEngine


def make_engine(kind: str, **settings: Any) -> AnyEngine:
    """Return an engine; its log goes nowhere."""
    if kind == "python":
        return LlamaEngine(Settings.model_validate(settings), lambda line: None)
    program = str(llama_server.ready())
    made = Settings.model_validate({"llama_server": program, **settings})
    return ServerEngine(made, lambda line: None, _unexpected)


def _unexpected(error: AIPlaygroundError) -> None:
    raise error
