"""The kernel for scripts and notebooks: the same, without `async`.

    with BlockingKernel() as kernel:
        for chunk in kernel.chat(request):
            print(chunk.text, end="")

The kernel runs on an event loop in a thread of its own, which ends with the `with` block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .status import ServiceInfo
    from .types import (
        ChatChunk,
        ChatRequest,
        Embeddings,
        EmbedRequest,
        GenerateEvent,
        GenerateRequest,
        ModelInfo,
    )


class BlockingKernel(AbstractContextManager["BlockingKernel"]):
    """A `Kernel` with blocking methods; takes the same arguments, and any thread may call it."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._kernel: Kernel | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            kernel = Kernel(**self._options)
            stack.enter_context(portal.wrap_async_context_manager(kernel))
            self._portal, self._kernel = portal, kernel
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._portal = None
        self._stack.close()

    @property
    def kernel(self) -> Kernel:
        """The kernel itself; its methods belong to its own thread, see `call`."""
        if self._kernel is None:
            raise RuntimeError("Use it as a context manager: `with BlockingKernel() as kernel:`")
        return self._kernel

    def call(self, method: Any, *args: Any) -> Any:
        """Run a method of the kernel in its thread: `kernel.call(kernel.kernel.health, name)`."""
        if self._portal is None:
            raise RuntimeError("The kernel is closed, or was never opened with `with`.")
        future = self._portal.start_task_soon(method, *args)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt (Ctrl-C) ends what was waited for
            raise

    def services(self) -> tuple[ServiceInfo, ...]:
        """Return every service as it stands."""
        return self.call(self.kernel.services)  # type: ignore[no-any-return]  # typed at its source

    def start(self, service: str, model: str | None = None) -> ServiceInfo:
        """Start a service; with `model`, bring that into memory as well."""
        return self.call(self.kernel.start, service, model)  # type: ignore[no-any-return]  # as above

    def stop(self, service: str) -> ServiceInfo:
        """Stop a service."""
        return self.call(self.kernel.stop, service)  # type: ignore[no-any-return]  # as above

    def set_up(self, service: str) -> ServiceInfo:
        """Install a service's engine."""
        return self.call(self.kernel.set_up, service)  # type: ignore[no-any-return]  # as above

    def models(self) -> list[ModelInfo]:
        """List every model that can be served now."""
        return self.call(self.kernel.models)  # type: ignore[no-any-return]  # as above

    def default_model(self, service: str | None = None) -> str:
        """Return the model that is meant when none is named; of one service, if one is."""
        return self.call(self.kernel.default_model, service)  # type: ignore[no-any-return]  # as above

    def embed(self, request: EmbedRequest | Mapping[str, Any]) -> Embeddings:
        """Turn texts into vectors."""
        return self.call(self.kernel.embed, request)  # type: ignore[no-any-return]  # as above

    def chat(self, request: ChatRequest | Mapping[str, Any]) -> Iterator[ChatChunk]:
        """Answer a conversation; leaving the loop early stops the engine."""
        return self._iterate(self.kernel.chat(request))

    def generate(self, request: GenerateRequest | Mapping[str, Any]) -> Iterator[GenerateEvent]:
        """Make what `request.kind` names, event by event."""
        return self._iterate(self.kernel.generate(request))

    def _iterate(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        # A step that an interrupt has cancelled ends before the answer is closed.
        turn = asyncio.Lock()
        end = object()
        try:
            while (item := self.call(_step, items, turn, end)) is not end:
                yield item
        finally:
            if self._portal is not None:  # else the kernel's end has ended the answer too
                self._portal.call(_close, items, turn)


async def _step(items: AsyncGenerator[Any, None], turn: asyncio.Lock, end: object) -> Any:
    async with turn:
        return await anext(items, end)


async def _close(items: AsyncGenerator[Any, None], turn: asyncio.Lock) -> None:
    async with turn:
        await items.aclose()
