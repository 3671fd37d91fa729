"""For each rule a backend that breaks it and no other, as a small diff of the reference.

State that outlives a kernel would spoil other rules: it is kept by `ctx.data_dir`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from aiplayground.context import ServiceContext
from aiplayground.errors import FailureClass, ServiceFailed, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Capability, Health, LaunchSpec
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    GenerateEvent,
    GenerateRequest,
    ModelInfo,
)
from tests.conformance import heavy
from tests.conformance.reference import Reference

ENDED = ChatChunk(finish_reason="stop")


@dataclass(frozen=True)
class Variant:
    """A plugin that breaks `rule`; `says` is in the message that its author reads.

    `hangs`: the rule is broken when the subject's patience ends.
    """

    rule: str
    plugin: Any
    says: str
    hangs: bool = False


VARIANTS: list[Variant] = []


def breaks(rule: str, says: str, *, hangs: bool = False) -> Any:
    def register(made: type) -> type:
        VARIANTS.append(Variant(rule, made(), says, hangs))
        return made

    return register


VARIANTS.append(Variant("declaration.import-cost", heavy, "imports httpx"))

# Declaration


@breaks("declaration.loads", r"hook 'chat' must be an async generator")
class NoGenerator(Reference):
    @hookimpl
    async def chat(  # type: ignore[override]  # that is what is wrong with it
        self, ctx: ServiceContext, request: ChatRequest
    ) -> Any:
        return None


@breaks("declaration.pure", r"hook 'backend': it returned")
class Changes(Reference):
    count = 0

    @hookimpl
    def backend(self) -> BackendSpec:
        self.count += 1
        return replace(self.spec, title=f"Reference {self.count}")


@breaks("declaration.capabilities", r"declares 'embedding' and has no 'embed'")
class NoEmbed(Reference):
    embed = None  # type: ignore[assignment]  # the hook is taken away


@breaks("declaration.hooks", r"implements 'embed', which no declared capability reaches")
class Undeclared(Reference):
    spec = replace(
        Reference.spec, capabilities=Reference.spec.capabilities - {Capability.EMBEDDING}
    )


@breaks("declaration.parameters", r"'max_token', which no request has. Did you mean 'max_tokens'")
class Misspelt(Reference):
    spec = replace(Reference.spec, parameters=Reference.spec.parameters | {"max_token"})


@breaks("declaration.settings", r"reading its settings raised InvalidSettings: .*greeting")
class NoDefault(Reference):
    spec = replace(Reference.spec, settings="tests.conformance.reference:Required")


@breaks("declaration.settings-described", r"setting 'greeting' has no description")
class Undescribed(Reference):
    spec = replace(Reference.spec, settings="tests.conformance.reference:Undescribed")


@breaks("declaration.version", r"hook 'installed_version': its engine counts as absent")
class NotInstalled(Reference):
    @hookimpl
    async def installed_version(self) -> str | None:
        return None


# Lifecycle


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


# Inference


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


# Streaming


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


# Cancellation


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


# Errors


@breaks("errors.unknown-model", r"hook 'load_model': it raised PluginError: .*KeyError")
class Indexes(Reference):
    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        _ = {"tiny": 1, "small": 2}[model]


@breaks("errors.parameter", r"a request with response_format=.* raised nothing")
class IgnoresFormat(Reference):
    def body(self, request: ChatRequest) -> dict[str, Any]:
        body = super().body(request)
        body.pop("response_format", None)
        return body


@breaks("errors.refusal", r"after a refusal by the engine \(400\), the caller .*where -4 is due")
class OneError(Reference):
    def refused(self, status: int, body: bytes) -> None:
        if b"no format" in body:
            super().refused(status, body)
        raise self.failed("the engine said no")


@breaks("errors.engine", r"hook 'chat': after a failure of the engine .*JSONDecodeError")
class ExpectsJson(Reference):
    def refused(self, status: int, body: bytes) -> None:
        json.loads(body)
        super().refused(status, body)


@breaks("errors.nonsense", r"hook 'chat': after an answer .*cannot be read.*JSONDecodeError")
class Trusts(Reference):
    def read(self, line: str) -> ChatChunk:
        json.loads(line.removeprefix("data: "))
        return super().read(line)


# Faults


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
class SwallowsExit(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        try:
            await ctx.spawn(self.launch())
        except ServiceFailed as error:
            if error.failure is not FailureClass.EXIT:
                raise


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
class SwallowsPort(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        try:
            await ctx.spawn(self.launch())
        except ServiceFailed as error:
            if error.failure is not FailureClass.PORT_TAKEN:
                raise


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
