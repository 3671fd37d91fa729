"""Running a command's work in a kernel of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._signals import Signals
from .exits import Interrupted

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

    from ._app import App
    from ._kernels import ChatKernel

T = TypeVar("T")


def run_with_kernel(app: App, work: Callable[[Kernel], Awaitable[T]], **options: Any) -> T:
    """Open a kernel, do the work and close it again; raises what the work raises.

    `options` are the kernel's own, such as `exclusive`.

    Raises `Interrupted` when a signal ended it; the kernel has ended its workers then.
    """
    from aiplayground.kernel import Kernel

    async def main() -> T:
        async with Kernel(home=app.home, **options) as kernel:
            return await work(kernel)

    return run(app, main)


def run_with_any(app: App, work: Callable[[ChatKernel], Awaitable[T]]) -> T:
    """Do the work with the kernel that runs with this home, else with one of its own."""
    from ._remote import running

    remote = running(app.paths)
    if remote is None:
        return run_with_kernel(app, work)

    async def main() -> T:
        from ._remote_kernel import connected

        async with connected(remote, app.paths) as kernel:
            return await work(kernel)

    return run(app, main)


def run(app: App, main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in an event loop that signals end cleanly."""
    with (
        asyncio.Runner(loop_factory=app.loop_factory) as runner,
        Signals(runner.get_loop()) as signals,
    ):
        app.signals = signals
        try:
            return runner.run(_watched(main, signals))
        except (Exception, asyncio.CancelledError) as error:
            if signals.received is None:
                raise
            raise Interrupted(signals.received) from error
        finally:
            app.signals = None


async def _watched(main: Callable[[], Awaitable[T]], signals: Signals) -> T:
    task = asyncio.current_task()
    assert task is not None
    signals.watch(task)
    if signals.received is not None:
        task.cancel()
    return await main()
