"""The reference backend as a plugin module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Capability

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext


@hookimpl
def backend() -> BackendSpec:
    """Say who this backend is."""
    return BackendSpec(
        name="reference", title="Reference", capabilities=frozenset({Capability.CHAT})
    )


@hookimpl
async def start(ctx: ServiceContext) -> None:
    """Launch the engine."""
    from .reference import Reference

    await Reference().start(ctx)


@hookimpl
async def list_models() -> Any:
    """List the models."""
    from .reference import Reference

    return await Reference().list_models()


@hookimpl
async def chat(ctx: ServiceContext, request: Any) -> Any:
    """Answer a conversation."""
    from .reference import Reference

    async for chunk in Reference().chat(ctx, request):
        yield chunk
