"""The llama.cpp engine: `aiplayground.serving.engine.Engine` over the low-level bindings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiplayground.errors import InvalidParameters
from aiplayground.serving.engine import LoadedModel, Progress
from aiplayground.types import ChatChunk, ChatRequest, CompletionRequest, Sampling

from .bindings import EngineLog, load_bindings
from .jobs import Job, Task
from .load import Loaded, check_file, load
from .native import unloaded
from .parameters import PARAMETERS
from .prompt import chat_tokens, text_tokens, too_long
from .sampling import plan
from .serial import Runner, SerialRunner
from .settings import Settings
from .template import ChatTemplate
from .thread import EngineThread


@dataclass(frozen=True, slots=True)
class _Seat:
    """A loaded model and who works on its jobs."""

    loaded: Loaded
    runner: Runner
    facts: LoadedModel


class LlamaEngine:
    """Serves one GGUF model. `report` takes lines for the worker's log."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = EngineLog(report, verbose=settings.verbose)
        self._report = report
        self._thread = EngineThread()
        self._lib: Any = None
        self._seat: _Seat | None = None
        self._closing = threading.Event()

    @property
    def parameters(self) -> frozenset[str]:
        """The request fields that have an effect."""
        return PARAMETERS

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that requests can use."""
        return self._seat.facts if self._seat else None

    @property
    def active(self) -> int:
        """How many requests are waiting or being worked on."""
        return self._seat.runner.active if self._seat else 0

    async def open(self) -> None:
        """Load the native library. Raises `ServiceFailed` if it is missing."""
        self._thread.start()
        await self._thread.call(self._open)

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        """Load a GGUF file in place of the present model.

        A file that is no sound GGUF is refused before the present model is given up.
        """
        gguf = await asyncio.to_thread(check_file, path)
        await self.unload()
        abandoned = threading.Event()

        def keep_on(fraction: float) -> bool:
            on_progress(fraction)
            return not abandoned.is_set() and not self._closing.is_set()

        def work() -> _Seat:
            loaded = load(self._lib, self._log, gguf, self._settings, keep_on, self._report)
            if abandoned.is_set():
                loaded.close()
                raise unloaded()
            self._seat = self._make_seat(loaded, name)
            return self._seat

        try:
            return (await self._thread.call(work)).facts
        finally:
            abandoned.set()  # after a success nobody looks at it any more

    async def unload(self) -> None:
        """Free the model; requests in progress end with an error."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.runner.abort(unloaded())
            await self._thread.call(seat.loaded.close)

    async def close(self) -> None:
        """End what is in progress, free everything, end the thread."""
        self._closing.set()
        await self.unload()
        self._thread.end()

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation."""
        seat = self._require()
        template = seat.loaded.template
        if not isinstance(template, ChatTemplate):
            raise InvalidParameters(template.message, details=template.details)
        stops = seat.loaded.template_stops

        def prompt() -> list[int]:
            model, size = seat.loaded.model, seat.loaded.context.size
            return chat_tokens(model, template, request.messages, size)

        return self._answer(seat, request, prompt, stops)

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        """Continue a text."""
        seat = self._require()

        def prompt() -> list[int]:
            return text_tokens(seat.loaded.model, request.prompt, seat.loaded.context.size)

        return self._answer(seat, request, prompt, ())

    async def _answer(
        self,
        seat: _Seat,
        request: Sampling,
        prompt: Callable[[], list[int]],
        stops: tuple[str, ...],
    ) -> AsyncGenerator[ChatChunk, None]:
        tokens = _check(await asyncio.to_thread(prompt), seat.loaded.context.size)
        if self._seat is not seat:  # unloaded while the prompt was made
            raise unloaded()
        loaded = seat.loaded
        job = Job(
            Task(
                prompt=tokens,
                plan=plan(request, loaded.model.vocabulary, loaded.defaults),
                stops=(*(request.stop or ()), *stops),
                limit=request.max_tokens,
            )
        )
        seat.runner.submit(job)
        async with aclosing(job.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    def _require(self) -> _Seat:
        if self._seat is None:
            raise unloaded()
        return self._seat

    def _open(self) -> None:
        self._lib = load_bindings()
        self._log.install(self._lib)
        self._lib.llama_backend_init()

    def _make_seat(self, loaded: Loaded, name: str) -> _Seat:
        runner = SerialRunner(self._thread, loaded.model, loaded.context)
        facts = LoadedModel(
            name=name,
            path=loaded.model.path,
            context_length=loaded.context.size,
            chat=not loaded.template_is_guess,
        )
        return _Seat(loaded, runner, facts)


def _check(tokens: list[int], limit: int) -> list[int]:
    if not tokens:
        raise InvalidParameters(
            "The prompt is empty. Give the model something to continue.",
            details={"field": "prompt"},
        )
    if len(tokens) >= limit:
        raise too_long(len(tokens), limit)
    return tokens
