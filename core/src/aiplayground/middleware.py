"""Middleware: what a plugin can wrap around lifecycle, request and chunk.

`register_middleware` returns objects with any of the methods of `Middleware`; the kernel composes
them, outermost first. With none registered, a stream is the backend's own generator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import AIPlaygroundError, PluginError

Operation = Literal["setup", "start", "stop", "load_model", "unload_model", "uninstall"]
Proceed = Callable[[Any], AsyncGenerator[Any, None]]


@dataclass(frozen=True, slots=True)
class LifecycleCall:
    """A step in a service's life that is about to run; `model` is set for model operations."""

    service: str
    operation: Operation
    model: str | None = None


@dataclass(frozen=True, slots=True)
class RequestCall:
    """A request on its way to a backend; `hook` is `chat`, `generate` or `embed`."""

    service: str
    hook: str
    request: Any


class Middleware:
    """Base class that shows the methods; a middleware may also be any object that has some."""

    async def lifecycle(self, call: LifecycleCall, proceed: Callable[[], Awaitable[None]]) -> None:
        """Run around a lifecycle step: `await proceed()` does it."""
        await proceed()

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        """Run around a request (an async generator): `proceed(request)` streams the answer.

        Use `async with aclosing(proceed(request)) as answer`, so that what you do after it comes
        after the engine's end. The kernel closes it in any case when this generator ends, so that
        a caller who goes away stops the engine at once.
        """
        async with aclosing(proceed(call.request)) as answer:
            async for item in answer:
                yield item

    def chunk(self, call: RequestCall, item: Any) -> Any:
        """Look at, replace or (by returning None) drop one item of an answer."""
        return item


def _overrides(middleware: object, method: str) -> Callable[..., Any] | None:
    """Return the method if the object really has one of its own."""
    own = getattr(middleware, method, None)
    if own is None or getattr(type(middleware), method, None) is getattr(Middleware, method):
        return None
    return own  # type: ignore[no-any-return]  # a plugin's attribute


@contextmanager
def _blaming(around: Callable[..., Any]) -> Iterator[None]:
    """Name the middleware in an error of its own; those of the backend pass as they are."""
    try:
        yield
    except AIPlaygroundError:
        raise
    except Exception as error:
        name = getattr(around, "__qualname__", repr(around))
        raise PluginError(
            f"The middleware '{name}' raised {type(error).__name__}: {error}. "
            f"This is a defect of the plugin that brings it; update or uninstall that.",
            details={"middleware": name, "error": type(error).__name__},
        ) from error


async def _filter(
    inner: AsyncGenerator[Any, None], look: Callable[[RequestCall, Any], Any], call: RequestCall
) -> AsyncGenerator[Any, None]:
    async with aclosing(inner) as items:
        async for item in items:
            with _blaming(look):
                seen = look(call, item)
            if seen is not None:
                yield seen


async def _closing(
    around: Callable[..., Any], call: RequestCall, inner: Proceed
) -> AsyncGenerator[Any, None]:
    async with AsyncExitStack() as opened:

        def proceed(request: Any) -> AsyncGenerator[Any, None]:
            # Closed by us as well: many a middleware will forget to.
            items = inner(request)
            opened.push_async_callback(items.aclose)
            return items

        with _blaming(around):
            async with aclosing(around(call, proceed)) as items:
                async for item in items:
                    yield item


def watches_requests(chain: Sequence[object]) -> bool:
    """Whether any middleware looks at requests or at the chunks of answers."""
    return any(_overrides(each, method) for each in chain for method in ("request", "chunk"))


def compose_request(chain: Sequence[object], call: RequestCall, innermost: Proceed) -> Proceed:
    """Wrap `innermost` in each middleware that looks at requests or chunks."""
    proceed = innermost
    for middleware in reversed(chain):
        if (look := _overrides(middleware, "chunk")) is not None:
            proceed = _around_chunks(look, call, proceed)
        if (around := _overrides(middleware, "request")) is not None:
            proceed = _around_request(around, call, proceed)
    return proceed


def _around_chunks(look: Callable[..., Any], call: RequestCall, inner: Proceed) -> Proceed:
    return lambda request: _filter(inner(request), look, replace(call, request=request))


def _around_request(around: Callable[..., Any], call: RequestCall, inner: Proceed) -> Proceed:
    return lambda request: _closing(around, replace(call, request=request), inner)


def compose_lifecycle(
    chain: Sequence[object], call: LifecycleCall, innermost: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """Wrap a lifecycle step in each middleware that looks at lifecycle."""
    proceed = innermost
    for middleware in reversed(chain):
        if (around := _overrides(middleware, "lifecycle")) is not None:
            proceed = _around_lifecycle(around, call, proceed)
    return proceed


def _around_lifecycle(
    around: Callable[..., Awaitable[None]],
    call: LifecycleCall,
    inner: Callable[[], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        with _blaming(around):
            await around(call, inner)

    return run
