"""AI Playground runs AI models on your own computer.

    from aiplayground import ChatRequest, Kernel

    async with Kernel() as kernel:
        request = ChatRequest(model="guide", messages=[{"role": "user", "content": "Hello"}])
        async for chunk in kernel.chat(request):
            print(chunk.text, end="")

Names are imported on first use: importing the package costs little and loads no HTTP, UI or ML
library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AIPlaygroundError": "errors",
    "BackendSpec": "specs",
    "BlockingKernel": "blocking",
    "Capability": "specs",
    "ChatChunk": "types",
    "ChatRequest": "types",
    "CompletionRequest": "types",
    "Device": "specs",
    "EmbedRequest": "types",
    "Embeddings": "types",
    "Event": "events",
    "GenerateEvent": "types",
    "Health": "specs",
    "Kernel": "kernel",
    "LaunchSpec": "specs",
    "Message": "types",
    "Middleware": "middleware",
    "ModelInfo": "types",
    "Overflow": "_bus",
    "ServiceInfo": "status",
    "SetupProgress": "specs",
    "hookimpl": "hookspecs",
}

if TYPE_CHECKING:
    from ._bus import Overflow
    from .blocking import BlockingKernel
    from .errors import AIPlaygroundError
    from .events import Event
    from .hookspecs import hookimpl
    from .kernel import Kernel
    from .middleware import Middleware
    from .specs import BackendSpec, Capability, Device, Health, LaunchSpec, SetupProgress
    from .status import ServiceInfo
    from .types import (
        ChatChunk,
        ChatRequest,
        CompletionRequest,
        Embeddings,
        EmbedRequest,
        GenerateEvent,
        Message,
        ModelInfo,
    )

__all__ = [  # noqa: RUF022  # the order in which a reader meets them
    "Kernel",
    "BlockingKernel",
    "ChatRequest",
    "ChatChunk",
    "Message",
    "CompletionRequest",
    "GenerateEvent",
    "EmbedRequest",
    "Embeddings",
    "ModelInfo",
    "ServiceInfo",
    "Event",
    "Overflow",
    "AIPlaygroundError",
    "hookimpl",
    "BackendSpec",
    "Capability",
    "LaunchSpec",
    "SetupProgress",
    "Health",
    "Device",
    "Middleware",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        from ._deprecations import moved

        return moved(f"{__name__}.{name}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
