"""The hooks of llamacpp-backend. Everything heavy is imported where it is used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Capability

from .parameters import PARAMETERS

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext
    from aiplayground.specs import Device, MemoryEstimate, SetupProgress
    from aiplayground.types import ModelInfo

AIPG_HOOK_API = 1


@hookimpl
def backend() -> BackendSpec:
    """Say who this backend is."""
    return BackendSpec(
        name="llamacpp-backend",
        title="llama.cpp",
        description="GGUF language models on llama.cpp",
        capabilities=frozenset(
            {
                Capability.CHAT,
                Capability.COMPLETION,
                Capability.EMBEDDING,
                Capability.RERANK,
                Capability.TOOLS,
                Capability.VISION,
            }
        ),
        parameters=PARAMETERS,
        preferred_port=8080,
        settings="aiplayground_llamacpp.settings:Settings",
        api="openai",
    )


@hookimpl
async def start(ctx: ServiceContext) -> None:
    """Launch the primary worker, with the model that the caller wants first, else empty."""
    from .launch import PRIMARY
    from .server.launch import worker_spec

    model = await ctx.find_model(ctx.model) if ctx.model else None
    await ctx.spawn(await worker_spec(ctx, model, name=PRIMARY))


@hookimpl
async def load_model(ctx: ServiceContext, model: str) -> None:
    """Load into the primary worker if it is empty, else into a worker of the model's own."""
    from .residency import load

    await load(ctx, model)


@hookimpl
async def unload_model(ctx: ServiceContext, model: str) -> None:
    """Empty the primary worker, or end the worker that the model has to itself."""
    from .residency import unload

    await unload(ctx, model)


@hookimpl
async def estimate_memory(ctx: ServiceContext, model: str) -> MemoryEstimate | None:
    """Estimate weights, context and working memory from the headers of the files."""
    from .admission import estimate_model

    return await estimate_model(ctx, model)


@hookimpl
async def release_memory(ctx: ServiceContext, model: str, wanted: int) -> int:
    """Give up conversations that are kept in main memory for later."""
    from .admission import release

    return await release(ctx, model, wanted)


@hookimpl
async def endpoint(ctx: ServiceContext, model: str | None) -> str:
    """Return the base URL of the worker that holds the model."""
    from .residency import base_url

    return base_url(ctx, model)


@hookimpl
async def list_models(ctx: ServiceContext) -> Sequence[ModelInfo]:
    """List the language models in the model folders and packs."""
    from .residency import list_served

    return await list_served(ctx)


@hookimpl
async def setup(ctx: ServiceContext) -> AsyncGenerator[SetupProgress, None]:
    """Fetch llama-server, where that is the engine that was chosen."""
    from .server.setup import set_up

    async with aclosing(set_up(ctx)) as steps:
        async for step in steps:
            yield step


@hookimpl
async def uninstall(ctx: ServiceContext) -> None:
    """Remove the llama-server that was fetched."""
    from .server.setup import remove

    await remove(ctx)


@hookimpl
async def installed_version(ctx: ServiceContext) -> str | None:
    """Return the version of llama-cpp-python or of llama-server; None if it is not installed."""
    from .server.setup import engine_version

    return await engine_version(ctx)


@hookimpl
def detect_devices() -> Sequence[Device]:
    """List the devices that the engines find, asked in short-lived processes."""
    from .devices import detect

    return detect()
