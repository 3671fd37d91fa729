"""The engine's thread."""

from __future__ import annotations

import asyncio
import weakref

from aiplayground_llamacpp.thread import EngineThread


class Thing:
    """Something that work refers to."""

    def touch(self) -> None:
        """Do nothing."""


async def test_an_idle_thread_keeps_nothing_of_its_last_work() -> None:
    thread, thing = EngineThread(), Thing()
    thread.start()
    thread.submit(thing.touch)
    kept = weakref.ref(thing)
    del thing
    async with asyncio.timeout(10):
        while kept() is not None:
            await asyncio.sleep(0.01)
    thread.end()
