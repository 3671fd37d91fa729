"""Breaking the rules of an answer in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiplayground.context import ServiceContext
from aiplayground.hookspecs import hookimpl
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
)
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


@breaks("streaming.finish", r"hook 'chat': the last chunk has no finish_reason")
class NeverFinished(Reference):
    def read(self, line: str) -> ChatChunk:
        return super().read(line).model_copy(update={"finish_reason": None})


@breaks("streaming.usage", r"hook 'chat': usage came with the chunks \[0, 1, ")
class UsageEverywhere(Reference):
    def read(self, line: str) -> ChatChunk:
        usage = super().read('{"finish": "stop", "tokens": 1}').usage
        chunk = super().read(line)
        return chunk if chunk.usage else chunk.model_copy(update={"usage": usage})


@breaks(
    "streaming.incremental",
    r"the first chunk, with three quarters .* did not end within",
    hangs=True,
)
class Buffers(Reference):
    @hookimpl
    async def chat(self, ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        for chunk in [chunk async for chunk in super().chat(ctx, request)]:
            yield chunk
