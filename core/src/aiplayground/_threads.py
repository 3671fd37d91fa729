"""Work that may hang, in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(seconds: float, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Return what `work` returns, or raise what it raises; `TimeoutError` after `seconds`.

    The thread is a daemon of its own, not one of the loop's pool: one that hangs keeps neither
    other work nor the end of the program waiting.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # None only if T has it

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*args, **named)
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the caller
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name=f"bounded {work!r:.40}", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await outcome
