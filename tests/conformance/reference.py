"""A backend that keeps every rule, with a worker of its own; the broken ones are diffs of it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field

from aiplayground.context import ServiceContext
from aiplayground.errors import (
    FailureClass,
    InvalidParameters,
    ModelNotFound,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.hookspecs import hookimpl
from aiplayground.settings import OwnSettings
from aiplayground.specs import BackendSpec, Capability, Health, LaunchSpec
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    GenerateEvent,
    GenerateRequest,
    ModelInfo,
    Usage,
)

SERVER = str(Path(__file__).parent / "server.py")
MODELS = ("tiny", "small")


class Settings(OwnSettings):
    """The settings of the reference backend."""

    greeting: str = Field(default="hello", description="What it would say first.")


class Undescribed(OwnSettings):
    """Settings of which nobody knows what they are."""

    greeting: str = "hello"


class Required(OwnSettings):
    """Settings that somebody must make before anything works."""

    greeting: str = Field(description="What it would say first.")


class Reference:
    """The reference backend."""

    spec = BackendSpec(
        name="reference",
        title="Reference",
        capabilities=frozenset(
            {Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING, Capability.RERANK}
        ),
        parameters=frozenset({"max_tokens", "response_format"}),
        settings=f"{__name__}:Settings",
    )

    @hookimpl
    def backend(self) -> BackendSpec:
        return self.spec

    @hookimpl
    async def installed_version(self) -> str | None:
        return "1.0"

    # Lifecycle

    def launch(self, **options: Any) -> LaunchSpec:
        return LaunchSpec(argv=[sys.executable, "-I", "-S", SERVER, "{port}"], **options)

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(self.launch())

    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        running = [each for each in ctx.workers.values() if each.info.state == "running"]
        return Health(ok=bool(running), detail="" if running else "no worker runs")

    @hookimpl
    async def list_models(self) -> Sequence[ModelInfo]:
        return [ModelInfo(name=name) for name in MODELS]

    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        if model not in MODELS:
            raise ModelNotFound(f"There is no model '{model}'. Models here: {', '.join(MODELS)}.")

    @hookimpl
    async def unload_model(self, ctx: ServiceContext, model: str) -> None:
        """A model of this engine takes no memory."""

    # Inference

    def url(self, ctx: ServiceContext) -> str:
        for worker in ctx.workers.values():
            if worker.info.state == "running":
                return worker.base_url
        raise ServiceNotAvailable("reference: its worker does not run now. Try again.")

    def body(self, request: ChatRequest) -> dict[str, Any]:
        return request.model_dump(exclude_none=True)

    @hookimpl
    async def chat(self, ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        url = self.url(ctx)
        try:
            async with self.asked(ctx, url, self.body(request)) as response:
                async for line in response.aiter_lines():
                    if line:
                        yield self.read(line)
                        if '"finish"' in line:
                            return
        except httpx.TransportError as error:
            raise await ctx.lost(url, error) from error
        raise await ctx.lost(url, ConnectionResetError("the answer broke off"))

    @asynccontextmanager
    async def asked(
        self, ctx: ServiceContext, url: str, body: dict[str, Any]
    ) -> AsyncIterator[httpx.Response]:
        address = f"{url}/v1/chat/completions"
        async with ctx.http.stream("POST", address, json=body, timeout=None) as response:
            if response.status_code != httpx.codes.OK:
                self.refused(response.status_code, await response.aread())
            yield response

    def refused(self, status: int, body: bytes) -> None:
        try:
            message = json.loads(body)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"HTTP {status}"
        if status == httpx.codes.BAD_REQUEST:
            raise InvalidParameters(f"reference: {message}")
        raise self.failed(message)

    def failed(self, message: str) -> ServiceFailed:
        return ServiceFailed(f"reference: {message}", failure=FailureClass.PLUGIN)

    def read(self, line: str) -> ChatChunk:
        try:
            event = json.loads(line.removeprefix("data: "))
        except ValueError as error:
            raise self.failed(f"its engine sent {line[:40]!r}") from error
        if "finish" not in event:
            return ChatChunk(text=event["text"])
        usage = Usage(prompt_tokens=1, completion_tokens=event["tokens"])
        return ChatChunk(finish_reason=event["finish"], usage=usage)

    @hookimpl
    async def generate(self, request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
        if request.kind == "rerank":
            yield GenerateEvent(kind="result", result={"order": [0, 1]})
            return
        yield GenerateEvent(kind="text", text="there was a backend")
        yield GenerateEvent(kind="text", finish_reason="stop")

    @hookimpl
    async def embed(self, ctx: ServiceContext, request: EmbedRequest) -> Embeddings:
        address = f"{self.url(ctx)}/v1/embeddings"
        answer = await ctx.http.post(address, json={"input": request.input})
        vectors = [each["embedding"] for each in answer.json()["data"]]
        return Embeddings(model=request.model, vectors=vectors)
