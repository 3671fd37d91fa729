"""The hooks of ai-backend. Everything heavy is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec

if TYPE_CHECKING:
    from aiplayground.context import ServiceContext


@hookimpl
def backend() -> BackendSpec:
    """Say who this is: the one service that the program cannot do without."""
    return BackendSpec(
        name="ai-backend",
        title="Gateway",
        description="One port for every backend: the OpenAI and Anthropic APIs",
        preferred_port=5000,
        required=True,
        settings="aiplayground_ai_backend.settings:Settings",
    )


@hookimpl
async def start(ctx: ServiceContext) -> None:
    """Serve, in the kernel's process and event loop."""
    from .service import start_gateway

    await start_gateway(ctx)


@hookimpl
async def installed_version() -> str:
    """Return the version of the API that is served: it is not the package's."""
    from .version import API_VERSION

    return API_VERSION
