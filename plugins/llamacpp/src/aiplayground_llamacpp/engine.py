"""The llama.cpp engine: `aiplayground.serving.engine.Engine` over the low-level bindings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from aiplayground.errors import AIPlaygroundError, InvalidParameters
from aiplayground.serving.engine import LoadedModel, Progress
from aiplayground.serving.formats import schema_of
from aiplayground.serving.shape import Shaper
from aiplayground.serving.tools import asked
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbedRequest,
    RerankRequest,
    Sampling,
    Scores,
    Usage,
)

from .bindings import EngineLog, load_bindings
from .embedder import Embedder, batches
from .grammar import grammar_of
from .jobs import Job, Task
from .load import Loaded, check_beside, check_file, load
from .native import Model, unloaded
from .options import options_for
from .parameters import PARAMETERS
from .prompt import Prompt, chat_prompt, input_tokens, text_tokens, too_long
from .ranking import frame_of, pair_tokens
from .runner import BatchRunner
from .sampling import plan
from .settings import Settings
from .template import ChatTemplate
from .thread import EngineThread
from .tuning import check_model, check_settings

STARTED = 1.0
"""Seconds after a load in which whoever waited for it is busy with the first answer."""


@dataclass(slots=True)
class _Seat:
    """A loaded model and who works on its jobs; a model for embeddings has no runner."""

    loaded: Loaded
    runner: BatchRunner | None
    facts: LoadedModel
    embedder: Embedder | None = None


class LlamaEngine:
    """Serves one GGUF model. `report` takes lines for the worker's log."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        """Make it, without loading anything. Raises `InvalidSettings`."""
        self._settings = settings
        self._extras = check_settings(settings)
        self._log = EngineLog(report, verbose=settings.verbose)
        self._report = report
        self._thread = EngineThread()
        self._lib: Any = None
        self._seat: _Seat | None = None
        self._embedding = 0
        self._preparing: asyncio.Task[None] | None = None
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
    def counters(self) -> Mapping[str, float]:
        """Sums since the model was loaded."""
        runner = self._seat.runner if self._seat else None
        return runner.counters.figures() if runner else {}

    @property
    def active(self) -> int:
        """How many requests are waiting or being worked on."""
        runner = self._seat.runner if self._seat else None
        return self._embedding + (runner.active if runner else 0)

    async def open(self) -> None:
        """Load the native library. Raises `ServiceFailed` if it is missing."""
        self._thread.start()
        await self._thread.call(self._open)

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        """Load a GGUF file in place of the present model.

        A file that is no sound GGUF, or has settings that cannot be met, is refused before the
        present model is given up.
        """
        gguf = await asyncio.to_thread(check_file, path)
        beside = await asyncio.to_thread(check_beside, gguf, self._settings, name, self._report)
        settings = options_for(self._settings, name)
        check_model(settings, gguf, name)
        await self.unload()
        abandoned = threading.Event()

        def keep_on(fraction: float) -> bool:
            on_progress(fraction)
            return not abandoned.is_set() and not self._closing.is_set()

        def work() -> _Seat:
            loaded = load(self._lib, self._log, gguf, settings, beside, keep_on, self._report)
            if abandoned.is_set():
                loaded.close()
                raise unloaded()
            self._seat = self._make_seat(loaded, name)
            return self._seat

        try:
            seat = await self._thread.call(work)
        finally:
            abandoned.set()  # after a success nobody looks at it any more
        self._preparing = asyncio.create_task(_prepare(seat.loaded.model))
        return seat.facts

    async def unload(self) -> None:
        """Free the model; requests in progress end with an error."""
        if self._preparing is not None:
            self._preparing.cancel()
        seat, self._seat = self._seat, None
        if seat is not None:
            if seat.runner is not None:
                seat.runner.abort(unloaded())
            await self._thread.call(self._vacate, seat)

    @property
    def releasable(self) -> int:
        """Bytes of conversations that no slot holds."""
        runner = self._seat.runner if self._seat is not None else None
        return 0 if runner is None else runner.counters.prompt_cache_bytes

    async def release(self) -> int:
        """Give up conversations that no slot holds; return the bytes."""
        seat = self._seat
        runner = seat.runner if seat is not None else None
        return 0 if runner is None else await self._thread.call(runner.release)

    async def close(self) -> None:
        """End what is in progress, free everything, end the thread."""
        self._closing.set()
        await self.unload()
        self._thread.end()

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation."""
        seat, runner = self._require_writer()
        template = seat.loaded.template
        if not isinstance(template, ChatTemplate):
            raise InvalidParameters(template.message, details=template.details)
        stops = seat.loaded.template_stops
        shaper = Shaper(template.dialect, request)
        wanted = asked(request)

        def prompt() -> Prompt:
            model, size = seat.loaded.model, seat.facts.context_length
            made = chat_prompt(model, template, wanted, size, seat.loaded.sight)
            shaper.begin(made.text)
            return made

        return self._answer(seat, runner, wanted, prompt, stops, shaper.take)

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        """Continue a text."""
        seat, runner = self._require_writer()

        def prompt() -> Prompt:
            text = request.prompt
            tokens = text_tokens(seat.loaded.model, text, seat.facts.context_length)
            return Prompt(tokens, text)

        return self._answer(seat, runner, request, prompt, ())

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn texts into vectors; answers go on between two batches of them."""
        seat = self._require()
        if seat.loaded.ranks:
            raise _unable(seat, "ranks documents and makes no embeddings", "an embedding model")
        self._embedding += 1
        try:
            size = (await self._thread.call(self._embedder, seat)).size
            texts = await asyncio.to_thread(input_tokens, seat.loaded.model, request.input, size)
            vectors: list[list[float]] = []
            for part in batches([len(text) for text in texts], size):
                vectors += await self._thread.call(self._embed, seat, texts[part])
        finally:
            self._embedding -= 1
        usage = Usage(prompt_tokens=sum(map(len, texts)))
        return Embeddings(model=request.model, vectors=vectors, usage=usage)

    async def rerank(self, request: RerankRequest) -> Scores:
        """Score documents; answers go on between two batches of them."""
        seat = self._require()
        if not seat.loaded.ranks:
            raise _unable(seat, "does not rank documents", "a reranker model")
        self._embedding += 1
        try:
            pairs = await asyncio.to_thread(_pairs, seat, request)
            scores: list[float] = []
            for part in batches([len(pair) for pair in pairs], seat.facts.context_length):
                scores += await self._thread.call(self._rank, seat, pairs[part])
        finally:
            self._embedding -= 1
        usage = Usage(prompt_tokens=sum(map(len, pairs)))
        return Scores(model=seat.facts.name, scores=scores, usage=usage)

    async def _answer(
        self,
        seat: _Seat,
        runner: BatchRunner,
        request: Sampling,
        prompt: Callable[[], Prompt],
        stops: tuple[str, ...],
        shape: Callable[[ChatChunk], ChatChunk | None] | None = None,
    ) -> AsyncGenerator[ChatChunk, None]:
        """Yield the answers; closing it, at whatever point, cancels the job."""
        task = await asyncio.to_thread(_task, seat, request, prompt, stops)
        if self._seat is not seat:  # unloaded while the prompt was made
            raise unloaded()
        job = Job(task)
        runner.submit(job)
        unfinished = task.answers
        try:
            # One generator and no more: each further one would cost every token its turn.
            while unfinished:
                chunk = await job.next()
                unfinished -= chunk.finish_reason is not None
                out = chunk if shape is None else shape(chunk)
                if out is not None:
                    yield out
        finally:
            runner.withdraw(job)

    def _require(self) -> _Seat:
        if self._seat is None:
            raise unloaded()
        return self._seat

    def _require_writer(self) -> tuple[_Seat, BatchRunner]:
        seat = self._require()
        if seat.runner is None:
            does = "ranks documents" if seat.loaded.ranks else "makes embeddings"
            raise _unable(seat, f"{does} and writes no text", "a language model")
        return seat, seat.runner

    def _embedder(self, seat: _Seat) -> Embedder:
        """Return what makes embeddings; in the engine's thread."""
        if self._seat is not seat:
            raise unloaded()
        if seat.embedder is None:
            seat.embedder = self._new_embedder(seat.loaded)
        return seat.embedder

    def _new_embedder(self, loaded: Loaded) -> Embedder:
        return Embedder(loaded.model, self._log, loaded.settings, ranks=loaded.ranks)

    def _embed(self, seat: _Seat, texts: list[list[int]]) -> list[list[float]]:
        return self._embedder(seat).embed(texts)

    def _rank(self, seat: _Seat, pairs: list[list[int]]) -> list[float]:
        return self._embedder(seat).rank(pairs)

    def _open(self) -> None:
        self._lib = load_bindings()
        self._log.install(self._lib)
        self._lib.llama_backend_init()
        if self._extras.numa:
            self._lib.llama_numa_init(self._extras.numa)

    def _make_seat(self, loaded: Loaded, name: str) -> _Seat:
        runner = embedder = None
        if loaded.context is None:
            try:
                embedder = self._new_embedder(loaded)
            except AIPlaygroundError:
                loaded.close()
                raise
            size = embedder.size
        else:
            cache = self._settings.prompt_cache * 2**20
            runner = BatchRunner(
                self._thread, loaded.context, self._report, cache=cache, sight=loaded.sight
            )
            runner.start()
            size = loaded.context.size
        facts = LoadedModel(
            name=name,
            path=loaded.model.path,
            context_length=size,
            chat=runner is not None and not loaded.template_is_guess,
        )
        return _Seat(loaded, runner, facts, embedder)

    def _vacate(self, seat: _Seat) -> None:
        if seat.runner is not None:
            seat.runner.close()
        if seat.embedder is not None:
            seat.embedder.close()
        seat.loaded.close()


async def _prepare(model: Model) -> None:
    """Import what needs numpy, which takes a third of a second, when the start is over."""
    await asyncio.sleep(STARTED)
    await asyncio.to_thread(import_module, f"{__package__}.greedy")
    model.has_arrays = True


def _unable(seat: _Seat, why: str, other: str) -> InvalidParameters:
    name = seat.facts.name
    return InvalidParameters(
        f"The model '{name}' {why}. Choose {other}.", details={"field": "model", "model": name}
    )


def _pairs(seat: _Seat, request: RerankRequest) -> list[list[int]]:
    loaded, limit = seat.loaded, seat.facts.context_length
    form = loaded.rank_form or frame_of(loaded.model)
    return pair_tokens(loaded.model, form, request.query, request.documents, limit)


def _task(
    seat: _Seat, request: Sampling, prompt: Callable[[], Prompt], stops: tuple[str, ...]
) -> Task:
    """Make everything that the runner needs; blocks, in a thread that has the time."""
    loaded = seat.loaded
    made = prompt()
    grammar = grammar_of(request, schema_of(request))
    if grammar is not None:
        loaded.model.group()
    alternatives = None
    if request.logprobs:
        from . import candidates  # noqa: F401  # its import takes time that the runner has not

        alternatives = request.top_logprobs or 0
    task = Task(
        prompt=made.tokens,
        images=made.images,
        plan=plan(request, loaded.model.vocabulary, loaded.defaults, grammar),
        stops=(*(request.stop or ()), *stops),
        limit=request.max_tokens,
        answers=request.n or 1,
        logprobs=alternatives,
    )
    _check(task, seat)
    return task


def _check(task: Task, seat: _Seat) -> None:
    limit, context = seat.facts.context_length, seat.loaded.context
    if not task.prompt:
        raise InvalidParameters(
            "The prompt is empty. Give the model something to continue.",
            details={"field": "prompt"},
        )
    if task.size >= limit:
        raise too_long(task.size, limit)
    sight, most = seat.loaded.sight, context.most_at_once if context else 0
    largest = max((image.size for image in task.images), default=0)
    if sight is not None and not sight.causal and largest > most:
        raise InvalidParameters(
            f"The image takes {largest} tokens, which this model must see at once, and a batch "
            f"holds {most}. Send a smaller image, or set batch_size to {largest} or more.",
            details={"field": "messages", "tokens": largest, "limit": most},
        )
