"""Breaking the rules of starts, stops and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from aiplayground.context import ServiceContext
from aiplayground.errors import ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import Health
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


@breaks("lifecycle.start", r"not healthy: no licence")
class Ill(Reference):
    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        return Health(ok=False, detail="no licence")


@breaks(
    "lifecycle.double-start",
    r"hook 'health': 5 callers .* one start launched \['main'.*ServiceNotAvailable",
)
class HealthStarts(Reference):
    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        if not (await super().health(ctx)).ok:
            await ctx.spawn(self.launch())
        return Health(ok=True)


@breaks("lifecycle.stop", r"hook 'stop': the stop left an error: .*AttributeError")
class StopRaises(Reference):
    @hookimpl
    async def stop(self, ctx: ServiceContext) -> None:
        worker: Any
        for worker in ctx.workers.values():
            worker.process.kill()


@breaks("lifecycle.restart", r"hook 'start': .*it runs already")
class OnlyOnce(Reference):
    def __init__(self) -> None:
        self.started: set[Path] = set()

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        if ctx.data_dir in self.started:
            raise ServiceNotAvailable("it runs already")
        await ctx.spawn(self.launch())
        self.started.add(ctx.data_dir)


@breaks("lifecycle.stop-during-start", r"hook 'start': the start went on after it was cancelled")
class Stubborn(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        try:
            await ctx.spawn(self.launch())
        except asyncio.CancelledError:
            await ctx.spawn(self.launch())


@breaks("lifecycle.stop-without-start", r"hook 'stop': .*KeyError")
class StopExpects(Reference):
    @hookimpl
    async def stop(self, ctx: ServiceContext) -> None:
        ctx.logger.info("ending %s", ctx.workers["main"].name)


@breaks("lifecycle.side-by-side", r"the second kernel could not start it: .*only one at a time")
class OneAtATime(Reference):
    def __init__(self) -> None:
        self.running: set[Path] = set()

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        if self.running - {ctx.data_dir}:
            raise ServiceNotAvailable("only one at a time")
        await ctx.spawn(self.launch())
        self.running.add(ctx.data_dir)

    @hookimpl
    async def stop(self, ctx: ServiceContext) -> None:
        self.running.discard(ctx.data_dir)


@breaks("lifecycle.tasks", r"leaves tasks: \['LeaksTasks\.watch', 'LeaksTasks\.watch'\]")
class LeaksTasks(Reference):
    def __init__(self) -> None:
        self.kept: list[Any] = []

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())
        self.kept.append(asyncio.create_task(self.watch()))

    async def watch(self) -> None:
        await asyncio.Event().wait()


@breaks("lifecycle.threads", r"leaves threads: \['watcher', 'watcher'\]")
class LeaksThreads(Reference):
    def __init__(self) -> None:
        self.end = threading.Event()

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())
        threading.Thread(target=self.end.wait, name="watcher", daemon=True).start()

    def release(self) -> None:
        self.end.set()


@breaks("lifecycle.descriptors", r"leaves open: \['/dev/null', '/dev/null'\]")
class LeaksFiles(Reference):
    def __init__(self) -> None:
        self.kept: list[int] = []

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())
        self.kept.append(os.open(os.devnull, os.O_RDONLY))

    def release(self) -> None:
        for number in self.kept:
            os.close(number)
        self.kept.clear()


@breaks("lifecycle.processes", r"leaves processes: \['sleep 600', 'sleep 600'\]")
class LeaksProcesses(Reference):
    def __init__(self) -> None:
        self.kept: list[subprocess.Popen[bytes]] = []

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())
        self.kept.append(subprocess.Popen(["sleep", "600"]))

    def release(self) -> None:
        for process in self.kept:
            process.kill()
            process.wait(10)
        self.kept.clear()


@breaks("lifecycle.quiet", r"printed 'up we go")
class Prints(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        print("up we go")
        await ctx.spawn(self.launch())


@breaks("lifecycle.globals", r"changed environment variables")
class SetsVariables(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        os.environ["REFERENCE_HOME"] = "here"
        await ctx.spawn(self.launch())

    def release(self) -> None:
        os.environ.pop("REFERENCE_HOME", None)


@breaks("lifecycle.unhandled", r"left with: Task exception was never retrieved .*nobody looks")
class TaskFails(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())
        task = asyncio.create_task(self.fail())
        await asyncio.wait({task})

    async def fail(self) -> None:
        raise ZeroDivisionError("nobody looks")
