"""The gateway of AI Playground: one local port for every backend.

`aipg serve` runs it as the service ai-backend. To mount it in an ASGI application of your own:

    from aiplayground_ai_backend import create_app

    gateway = create_app(kernel)
    ...
    await gateway.aclose()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from aiplayground.kernel import Kernel

    from .gateway import Gateway
    from .settings import Settings

__all__ = ["create_app"]


def create_app(
    kernel: Kernel,
    settings: Settings | None = None,
    *,
    token: str | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Gateway:
    """Return the gateway over an open kernel, as an ASGI application.

    `token` is the secret that whatever changes something asks for (made at random if not given; it
    is the attribute `token`). `tracer_provider` gets a span for each request (OpenTelemetry; if not
    given, the global one that your program may have set). Close the gateway with `aclose` before
    the kernel.
    """
    from .gateway import Gateway
    from .settings import Settings

    return Gateway(kernel, settings or Settings(), token=token, tracer_provider=tracer_provider)
