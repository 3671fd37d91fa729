"""The engine: `aiplayground.serving.engine.Engine` whose answers a `llama-server` computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from aiplayground.errors import AIPlaygroundError, FailureClass, InvalidParameters, ServiceFailed
from aiplayground.serving.engine import LoadedModel, Progress
from aiplayground.serving.formats import schema_of
from aiplayground.serving.shape import Shaper, shaped
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
from aiplayground_llamacpp.embedder import batches
from aiplayground_llamacpp.grammar import grammar_of
from aiplayground_llamacpp.load import check_beside, check_file
from aiplayground_llamacpp.native import unloaded
from aiplayground_llamacpp.options import options_for
from aiplayground_llamacpp.parameters import PARAMETERS
from aiplayground_llamacpp.prompt import chat_prompt, input_tokens, text_tokens, too_long
from aiplayground_llamacpp.sampling import plan
from aiplayground_llamacpp.settings import Settings
from aiplayground_llamacpp.template import ChatTemplate
from aiplayground_llamacpp.tuning import check_cache, check_heads

from .answer import AnswerReader
from .checks import check_here, find_draft
from .client import Client
from .merge import merged
from .program import check_program
from .ranking import make_pairs
from .request import Task, body_of
from .seat import Seat, Served, embedding_size, open_seat, open_second
from .seeing import Scene
from .texts import texts_of

EXIT_WAIT = 2.0
"""Seconds to wait for the end of a process after a connection to it broke."""


class ServerEngine:
    """Serves one GGUF model. `report` takes lines for the worker's log.

    `fatal` is told why a process that held a model went away by itself: the worker has lost it and
    must end, so that the kernel starts it anew.
    """

    def __init__(
        self,
        settings: Settings,
        report: Callable[[str], None],
        fatal: Callable[[AIPlaygroundError], None],
    ) -> None:
        """Make it, without loading anything. Raises `InvalidSettings`."""
        check_cache(settings)
        self._settings = settings
        self._program = settings.llama_server
        self._report = report
        self._fatal = fatal
        self._seat: Seat | None = None
        self._watches: set[asyncio.Task[None]] = set()
        self._active = 0

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
        return self._active

    async def open(self) -> None:
        """Check that the program can be run. Raises `ServiceFailed` if not."""
        await asyncio.to_thread(check_program, self._program)

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        """Load a GGUF file in place of the present model.

        A file that is no sound GGUF, or has settings that cannot be met, is refused before the
        present model is given up.
        """
        gguf = await asyncio.to_thread(check_file, path)
        check_here(gguf)
        beside = await asyncio.to_thread(check_beside, gguf, self._settings, name, self._report)
        draft = await asyncio.to_thread(find_draft, self._settings, name, gguf)
        settings = options_for(self._settings, name)
        check_heads(settings, gguf)
        await self.unload()
        on_progress(0.0)
        beside = replace(beside, draft=draft)
        seat = await open_seat(self._program, gguf, name, settings, beside, self._report)
        self._seat = seat
        self._watch(seat, seat.served)
        on_progress(1.0)
        return seat.facts

    async def unload(self) -> None:
        """Free the model; requests in progress end with an error."""
        seat, self._seat = self._seat, None
        if seat is not None:
            await seat.close()

    async def close(self) -> None:
        """End what is in progress and free everything."""
        await self.unload()
        for watch in self._watches:
            watch.cancel()

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation."""
        seat = self._require_writer()
        template = seat.template
        if not isinstance(template, ChatTemplate):
            raise InvalidParameters(template.message, details=template.details)
        shaper = Shaper(template.dialect, request)
        wanted = asked(request)

        def task() -> Task:
            tokenizer = seat.tokenizer.with_texts(texts_of(request))
            eyes = seat.eyes(tokenizer)
            made = chat_prompt(tokenizer, template, wanted, seat.facts.context_length, eyes)
            shaper.begin(made.text)
            stops, shown = seat.template_stops, tuple(template.dialect.markers)
            scene = eyes.scene if eyes is not None else None
            return _task(seat, wanted, made.tokens, stops=stops, shown=shown, scene=scene)

        return shaped(self._answer(seat, task), shaper)

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        """Continue a text."""
        seat = self._require_writer()

        def task() -> Task:
            tokens = text_tokens(seat.tokenizer, request.prompt, seat.facts.context_length)
            template = seat.template
            shown = tuple(template.dialect.markers) if isinstance(template, ChatTemplate) else ()
            return _task(seat, request, tokens, stops=(), shown=shown)

        return self._answer(seat, task)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn texts into vectors."""
        seat = self._require()
        if seat.gguf.is_reranker:
            raise _unable(seat, "ranks documents and makes no embeddings", "an embedding model")
        size = embedding_size(seat.gguf, seat.settings)
        self._active += 1
        try:
            texts = await asyncio.to_thread(input_tokens, seat.tokenizer, request.input, size)
            client = await self._embedder(seat)
            vectors: list[list[float]] = []
            for part in batches([len(text) for text in texts], size):
                vectors += await client.embeddings(texts[part])
        except ServiceFailed as error:
            raise await self._explained(seat, error) from error
        finally:
            self._active -= 1
        usage = Usage(prompt_tokens=sum(map(len, texts)))
        return Embeddings(model=request.model, vectors=vectors, usage=usage)

    async def rerank(self, request: RerankRequest) -> Scores:
        """Score documents."""
        seat = self._require()
        form, size = seat.rank_form, seat.facts.context_length
        if form is None:
            raise _unable(seat, "does not rank documents", "a reranker model")
        self._active += 1
        try:
            pairs = await asyncio.to_thread(make_pairs, seat.tokenizer, form, request, size)
            scores: list[float] = []
            for part in batches(pairs.lengths, size):
                found, _ = await seat.served.client.rerank(pairs.query, pairs.documents[part])
                scores += found
        except ServiceFailed as error:
            raise await self._explained(seat, error) from error
        finally:
            self._active -= 1
        usage = Usage(prompt_tokens=sum(pairs.lengths))
        return Scores(model=seat.facts.name, scores=scores, usage=usage)

    async def _answer(
        self, seat: Seat, make: Callable[[], Task]
    ) -> AsyncGenerator[ChatChunk, None]:
        self._active += 1
        try:
            task = await asyncio.to_thread(make)
            if self._seat is not seat:  # unloaded while the prompt was made
                raise unloaded()
            answers = [_one(seat.served.client, task, index) for index in range(task.answers)]
            async with aclosing(merged(answers)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ServiceFailed as error:
            raise await self._explained(seat, error) from error
        finally:
            self._active -= 1

    async def _explained(self, seat: Seat, error: ServiceFailed) -> AIPlaygroundError:
        """Return what made a request fail: a broken connection does not tell by itself."""
        if seat.closed:
            return unloaded()
        try:
            async with asyncio.timeout(EXIT_WAIT):
                return await seat.served.child.wait() or unloaded()
        except TimeoutError:  # it is still there
            return error

    async def _embedder(self, seat: Seat) -> Client:
        """Return the client that makes embeddings; a model that writes is loaded again for them."""
        if not seat.writes:
            return seat.served.client
        async with seat.opening:
            if seat.closed:
                raise unloaded()
            if seat.second is None:
                seat.second = await open_second(self._program, seat, self._report)
                self._watch(seat, seat.second)
        return seat.second.client

    def _watch(self, seat: Seat, served: Served) -> None:
        async def watch() -> None:
            error = await served.child.wait()
            if error is not None and self._seat is seat and not seat.closed:
                self._seat = None
                self._fatal(error)

        task = asyncio.create_task(watch())
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    def _require(self) -> Seat:
        if self._seat is None:
            raise unloaded()
        return self._seat

    def _require_writer(self) -> Seat:
        seat = self._require()
        if not seat.writes:
            does = "ranks documents" if seat.gguf.is_reranker else "makes embeddings"
            raise _unable(seat, f"{does} and writes no text", "a language model")
        return seat


def _unable(seat: Seat, why: str, other: str) -> InvalidParameters:
    name = seat.facts.name
    return InvalidParameters(
        f"The model '{name}' {why}. Choose {other}.", details={"field": "model", "model": name}
    )


async def _one(client: Client, task: Task, index: int) -> AsyncGenerator[ChatChunk, None]:
    """Yield one of the answers to a task; closing it ends the work on it."""
    reader = AnswerReader(task, index)
    async with aclosing(client.complete(body_of(task, index))) as events:
        async for event in events:
            chunk = reader.take(event)
            if chunk is not None:
                yield chunk
            if chunk is not None and chunk.finish_reason is not None:
                return
    raise ServiceFailed("The answer of llama-server broke off.", failure=FailureClass.CRASH)


def _task(
    seat: Seat,
    request: Sampling,
    tokens: list[int],
    *,
    stops: tuple[str, ...],
    shown: tuple[str, ...],
    scene: Scene | None = None,
) -> Task:
    """Make everything that an answer needs; blocks, in a thread that has the time."""
    size = seat.facts.context_length
    if not tokens and scene is None:
        raise InvalidParameters(
            "The prompt is empty. Give the model something to continue.",
            details={"field": "prompt"},
        )
    if len(tokens) >= size:
        raise too_long(len(tokens), size)
    grammar = grammar_of(request, schema_of(request))
    room = size - len(tokens)
    return Task(
        prompt=tokens,
        plan=plan(request, seat.vocabulary, seat.defaults, grammar),
        limit=min(request.max_tokens or room, room),
        size=size,
        scene=scene,
        stops=(*(request.stop or ()), *stops),
        answers=request.n or 1,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        shown=shown,
    )
