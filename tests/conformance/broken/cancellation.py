"""Breaking the rules of answers that nobody wants any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
)
from tests.conformance.broken.lines import ENDED, Lines
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


@breaks("cancellation.close", r"cancellation.close: closing an answer did not end within")
class Drains(Reference):
    @hookimpl
    async def chat(self, ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        url = self.url(ctx)
        try:
            async with self.asked(ctx, url, self.body(request)) as response:
                lines = response.aiter_lines()
                try:
                    async for line in lines:
                        if line:
                            yield self.read(line)
                            if '"finish"' in line:
                                return
                except GeneratorExit:
                    async for _ in lines:
                        pass  # what is left of the answer
                    raise
        except httpx.TransportError as error:
            raise await ctx.lost(url, error) from error
        raise await ctx.lost(url, ConnectionResetError("the answer broke off"))


@breaks("cancellation.cancel", r"hook 'chat': the caller was cancelled and got 'an answer")
class Swallows(Lines):
    async def chunks(
        self, ctx: ServiceContext, url: str, response: httpx.Response
    ) -> AsyncIterator[ChatChunk]:
        try:
            async for line in response.aiter_lines():
                if line:
                    yield self.read(line)
        except asyncio.CancelledError:
            yield ENDED


@breaks("cancellation.before-first", r"closing the request to the engine, after the caller was")
class Shields(Reference):
    @asynccontextmanager
    async def asked(
        self, ctx: ServiceContext, url: str, body: dict[str, Any]
    ) -> AsyncIterator[httpx.Response]:
        request = ctx.http.build_request(
            "POST", f"{url}/v1/chat/completions", json=body, timeout=None
        )
        sending = asyncio.create_task(ctx.http.send(request, stream=True))
        sending.add_done_callback(lambda task: task.cancelled() or task.exception())
        response = await asyncio.shield(sending)
        try:
            if response.status_code != httpx.codes.OK:
                self.refused(response.status_code, await response.aread())
            yield response
        finally:
            await response.aclose()


@breaks("cancellation.next", r"cancellation.next: .*did not end within", hangs=True)
class LosesSlots(Reference):
    def __init__(self) -> None:
        self.slots: dict[Path, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def asked(self, ctx: ServiceContext, *args: Any) -> AsyncIterator[httpx.Response]:
        slots = self.slots.setdefault(ctx.data_dir, asyncio.Semaphore(2))
        await slots.acquire()
        try:
            async with super().asked(ctx, *args) as response:
                yield response
        except Exception:
            slots.release()
            raise
        else:
            slots.release()


@breaks("cancellation.others", r"hook 'chat': the other answer ended with .*all were aborted")
class AbortsAll(Lines):
    aborts = 0

    async def chunks(
        self, ctx: ServiceContext, url: str, response: httpx.Response
    ) -> AsyncIterator[ChatChunk]:
        before = self.aborts
        try:
            async for line in response.aiter_lines():
                if self.aborts != before:
                    raise ServiceNotAvailable("all were aborted")
                if line:
                    yield self.read(line)
        except asyncio.CancelledError:
            self.aborts += 1
            raise


@breaks(
    "cancellation.stop",
    r"hook 'chat': after a stop of the service, the caller waits for ever",
    hangs=True,
)
class WaitsForIdle(Lines):
    async def chunks(
        self, ctx: ServiceContext, url: str, response: httpx.Response
    ) -> AsyncIterator[ChatChunk]:
        try:
            async for line in response.aiter_lines():
                if line:
                    yield self.read(line)
        except asyncio.CancelledError:
            await self.idle(ctx, url)
            raise

    async def idle(self, ctx: ServiceContext, url: str) -> None:
        while True:
            try:
                await ctx.http.get(f"{url}/health")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
