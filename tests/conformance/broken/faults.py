"""Breaking the rules for a worker that crashes, hangs or never comes up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from aiplayground.context import ServiceContext
from aiplayground.errors import FailureClass, ServiceFailed
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import LaunchSpec
from aiplayground.types import (
    ChatChunk,
)
from tests.conformance.broken.lines import ENDED, Lines
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


class Forgives(Reference):
    """Takes a launch that failed in one way for a good one."""

    forgiven: FailureClass

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        try:
            await ctx.spawn(self.launch())
        except ServiceFailed as error:
            if error.failure is not self.forgiven:
                raise


@breaks("faults.sigkill", r"faults.sigkill: ")
class RemembersAddress(Reference):
    def __init__(self) -> None:
        self.urls: dict[Path, str] = {}

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.urls[ctx.data_dir] = (await ctx.spawn(self.launch())).base_url

    def url(self, ctx: ServiceContext) -> str:
        return self.urls[ctx.data_dir]


@breaks("faults.hang", r"after a hang of the worker, the answer was cut short but said to be")
class HangIsEnd(Lines):
    def harmless(self, lost: Exception) -> bool:
        return isinstance(lost, ServiceFailed) and lost.failure is FailureClass.HUNG


@breaks("faults.ignored-sigterm", r"with a worker that ignores SIGTERM, .*did not end within 2 s")
class AsksToEnd(Reference):
    @hookimpl
    async def stop(self, ctx: ServiceContext) -> None:
        for worker in ctx.workers.values():
            await ctx.http.post(f"{worker.base_url}/shutdown", timeout=None)


@breaks("faults.grandchild", r"with a helper that ignores SIGTERM, .*did not end within 2 s")
class WaitsForTree(Reference):
    @hookimpl
    async def stop(self, ctx: ServiceContext) -> None:
        for worker in ctx.workers.values():
            while len(psutil.Process(worker.info.pid).children(recursive=True)) > 1:
                await asyncio.sleep(0.02)


@breaks("faults.kernel-gone", r"hook 'start': the worker 'main' \[\d+\] outlives the kernel")
class SaysOurs(Reference):
    def launch(self, **options: Any) -> LaunchSpec:
        return super().launch(ours=True, **options)


@breaks("faults.slow-start", r"faults.slow-start: hook 'start': .*TimeoutError")
class OwnDeadline(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        async with asyncio.timeout(2.0):
            await ctx.spawn(self.launch())


@breaks(
    "faults.never-ready",
    r"a start after a worker that never gets ready did not end within",
    hangs=True,
)
class TriesForEver(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        while True:
            try:
                await ctx.spawn(self.launch())
            except ServiceFailed as error:
                if error.failure is not FailureClass.TIMEOUT:
                    raise
            else:
                return


@breaks("faults.exit-during-start", r"hook 'start': .*its exit code is lost: .*no worker runs")
class SwallowsExit(Forgives):
    forgiven = FailureClass.EXIT


@breaks("faults.garbage-output", r"hook 'start': after garbage .*JSONDecodeError")
class ReadsLog(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        try:
            await ctx.spawn(self.launch())
        except ServiceFailed as error:
            for line in error.details.get("log", ()):
                if line.startswith("{"):
                    json.loads(line)
            raise


@breaks("faults.port-taken", r"the failure is 'exit', where 'port-taken' is due")
class SwallowsPort(Forgives):
    forgiven = FailureClass.PORT_TAKEN


@breaks("faults.crash-at-byte", r"the answer was cut short but said to be complete")
class BreakIsEnd(Lines):
    def harmless(self, lost: Exception) -> bool:
        return not isinstance(lost, ServiceFailed)


@breaks("faults.half-open", r"sends nothing more, the answer was cut short but said to be complete")
class OwnPatience(Lines):
    async def chunks(
        self, ctx: ServiceContext, url: str, response: httpx.Response
    ) -> AsyncIterator[ChatChunk]:
        lines = response.aiter_lines()
        while True:
            try:
                async with asyncio.timeout(0.7):
                    line = await anext(lines)
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield ENDED
                return
            if line:
                yield self.read(line)


@breaks("faults.blocked-loop", r"hook 'start': it held the event loop for \d+ ms")
class Blocks(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        time.sleep(0.15)
        await ctx.spawn(self.launch())
