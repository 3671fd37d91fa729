"""The reference with its loop in the open, for what goes wrong inside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from aiplayground.context import ServiceContext
from aiplayground.hookspecs import hookimpl
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
)
from tests.conformance.reference import Reference

ENDED = ChatChunk(finish_reason="stop")


class Lines(Reference):
    """The reference with its loop in the open, for what goes wrong inside it."""

    @hookimpl
    async def chat(self, ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        url = self.url(ctx)
        try:
            async with self.asked(ctx, url, self.body(request)) as response:
                async for chunk in self.chunks(ctx, url, response):
                    yield chunk
                    if chunk.finish_reason is not None:
                        return
        except httpx.TransportError as error:
            lost = await ctx.lost(url, error)
            if not self.harmless(lost):
                raise lost from error
            yield ENDED
            return
        raise await ctx.lost(url, ConnectionResetError("the answer broke off"))

    async def chunks(
        self, ctx: ServiceContext, url: str, response: httpx.Response
    ) -> AsyncIterator[ChatChunk]:
        async for line in response.aiter_lines():
            if line:
                yield self.read(line)

    def harmless(self, lost: Exception) -> bool:
        return False
