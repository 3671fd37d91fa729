"""Watching the model folders while somebody wants to know.

The operating system tells of changes (`watchfiles`); where it cannot, the folders are looked at
every few seconds. A change is told once its folder has been quiet for a moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import AIPlaygroundError
from .models import is_unfinished

if TYPE_CHECKING:
    import logging

    from ._library import Library
    from .settings import ModelSettings

CHECK = 1.0
"""Seconds between looks whether anybody still wants to know, and whether folders came or went."""

QUIET = 0.4
"""Seconds without a change after which the folders are looked at."""

PATIENCE = 5.0
"""Seconds of unbroken changes after which they are looked at all the same."""


class ModelWatch:
    """Watches while `wanted` says so; `begin` starts it, and it ends by itself."""

    def __init__(
        self,
        library: Library,
        settings: ModelSettings,
        wanted: Callable[[], bool],
        logger: logging.Logger,
    ) -> None:
        self._library = library
        self._settings = settings
        self._wanted = wanted
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Watch from now on; nothing happens if that is so, or if the settings say not to."""
        if self._settings.watch != "off" and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="model folders")

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def running(self) -> bool:
        """Whether the folders are watched now."""
        return self._task is not None and not self._task.done()

    async def _run(self) -> None:
        polls = self._settings.watch == "poll"
        while self._wanted():
            try:
                polls = await (self._poll() if polls else self._listen())
            except (OSError, AIPlaygroundError) as error:
                self._logger.warning("The model folders cannot be watched: %s", error)
                polls = True

    async def _poll(self) -> bool:
        await self._library.refresh()
        await asyncio.sleep(self._settings.watch_interval)
        return True

    async def _listen(self) -> bool:
        """Listen until nobody wants to know, or other folders are there; say whether to poll."""
        folders = await asyncio.to_thread(_existing, self._library.paths.roots())
        listener = Listener(folders, asyncio.get_running_loop())
        try:
            await self._library.refresh()
            while self._wanted() and not listener.failed:
                if await listener.changed(CHECK):
                    await self._library.refresh()
                elif folders != await asyncio.to_thread(_existing, self._library.paths.roots()):
                    break
        finally:
            listener.close()
        if listener.failed:
            self._logger.warning("The model folders are looked at now and then: %s", listener.why)
        return listener.failed


class Listener:
    """Hears of changes below folders in a thread that keeps no program alive."""

    def __init__(self, folders: Sequence[Path], loop: asyncio.AbstractEventLoop) -> None:
        self._folders = folders
        self._loop = loop
        self._event = asyncio.Event()
        self._stop = threading.Event()
        self.why = ""
        threading.Thread(target=self._run, name="model folders", daemon=True).start()

    @property
    def failed(self) -> bool:
        """Whether the system does not tell of changes."""
        return bool(self.why)

    async def changed(self, seconds: float) -> bool:
        """Wait for a change, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return not self.failed

    def close(self) -> None:
        """End the thread; it is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001  # the library raises several; polling follows
            self.why = f"{type(error).__name__}: {error}"
            self._tell()

    def _watch(self) -> None:
        from watchfiles import watch

        if not self._folders:
            self._stop.wait()
            return
        begun = False
        for changes in watch(
            *self._folders,
            watch_filter=_matters,
            debounce=round(PATIENCE * 1000),
            step=round(QUIET * 1000),
            stop_event=self._stop,
            rust_timeout=round(CHECK * 1000),
            raise_interrupt=False,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        ):
            # The first time, whatever it is: what happened before it listened is not told.
            if changes or not begun:
                begun = True
                self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            self._stop.set()  # the loop has ended: nobody listens any more


def _matters(_: object, path: str) -> bool:
    """Leave out what is still written to: a download's changes would never end."""
    return not is_unfinished(Path(path).name)


def _existing(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if folder.is_dir()]
