"""Breaking the rules of requests and models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from aiplayground.context import ServiceContext
from aiplayground.errors import ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    GenerateEvent,
    GenerateRequest,
    ModelInfo,
)
from tests.conformance.broken.lines import ENDED
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


@breaks("inference.models", r"hook 'list_models': it lists tiny more than once")
class Twice(Reference):
    @hookimpl
    async def list_models(self) -> Sequence[ModelInfo]:
        return [ModelInfo(name="tiny"), ModelInfo(name="tiny", size=7)]


@breaks("inference.chat", r"hook 'chat': the answer has no text")
class Silent(Reference):
    @hookimpl
    async def chat(self, ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        yield ENDED


@breaks("inference.max-tokens", r"hook 'chat': it used 12 tokens where 3 were allowed")
class Ignores(Reference):
    def body(self, request: ChatRequest) -> dict[str, Any]:
        body = super().body(request)
        body.pop("max_tokens", None)
        return body


@breaks("inference.parallel", r"hook 'chat': one of 4 at once failed: .*busy")
class OneCaller(Reference):
    busy = False

    @asynccontextmanager
    async def asked(self, *args: Any) -> AsyncIterator[httpx.Response]:
        if self.busy:
            raise ServiceNotAvailable("reference: busy")
        self.busy = True
        try:
            async with super().asked(*args) as response:
                yield response
        finally:
            self.busy = False


@breaks("inference.on-demand", r"hook 'start': a first request failed: .*name no model")
class NoModelAtStart(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        if ctx.model is not None:
            raise ServiceNotAvailable("reference: name no model")
        await ctx.spawn(self.launch())


@breaks("inference.reload", r"inference.reload: hook 'load_model': .*it was unloaded")
class GoneForGood(Reference):
    def __init__(self) -> None:
        self.gone: set[tuple[Path, str]] = set()

    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        if (ctx.data_dir, model) in self.gone:
            raise ServiceNotAvailable("it was unloaded")
        await super().load_model(ctx, model)

    @hookimpl
    async def unload_model(self, ctx: ServiceContext, model: str) -> None:
        self.gone.add((ctx.data_dir, model))


@breaks("inference.completion", r"hook 'generate': the last event has no finish_reason")
class NoReason(Reference):
    @hookimpl
    async def generate(self, request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
        async for event in super().generate(request):
            yield event.model_copy(update={"finish_reason": None})


@breaks("inference.generate", r"hook 'generate': a rerank gave only \['text'\], no 'result'")
class OnlyText(Reference):
    @hookimpl
    async def generate(self, request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
        async for event in super().generate(request):
            yield event.model_copy(update={"kind": "text"})


@breaks("inference.embedding", r"hook 'embed': 3 texts gave 2 vectors")
class OneShort(Reference):
    @hookimpl
    async def embed(self, ctx: ServiceContext, request: EmbedRequest) -> Embeddings:
        whole = await super().embed(ctx, request)
        vectors = whole.vectors if len(whole.vectors) == 1 else whole.vectors[1:]
        return whole.model_copy(update={"vectors": vectors})
