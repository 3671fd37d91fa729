"""The file of the conversations, and the one thread that touches it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aiplayground.errors import FileOperationError

from ._opening import BUSY, FILE, Opened, explain, is_damage, open_file
from ._schema import transaction

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for an answer of the thread; only a disk that hangs takes so long."""


class Database:
    """Runs functions on the connection, one after the other, in a thread of its own.

    The order of `submit` is the order in which they run. Opened by the first of them, so that a
    program that never speaks of conversations makes no file.
    """

    def __init__(self, folder: Path, busy: float = BUSY) -> None:
        self.path = folder / FILE
        self._busy = busy
        self._opened: Opened | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    async def open(self) -> Opened:
        """Open the file now. Raises `FileOperationError`."""
        return await self._answer(self._submit(self._file))

    async def run(self, work: Callable[[Opened], T]) -> T:
        """Do something in a transaction: all of it or nothing. Raises what it raises, and
        `FileOperationError`.
        """
        return await self._answer(self.submit(work))

    async def read(self, work: Callable[[Opened], T]) -> T:
        """Read something, without making another program wait; otherwise as `run`."""
        return await self._answer(self._submit(lambda: self._in_transaction(work, reading=True)))

    def submit(self, work: Callable[[Opened], T]) -> Future[T]:
        """Begin what `run` does, and return at once."""
        return self._submit(lambda: self._in_transaction(work))

    async def close(self) -> None:
        """Finish what was submitted, and close the file."""
        if self._closed:
            return
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            closing = thread.submit(self._close)
            await asyncio.to_thread(thread.shutdown)
            closing.result()

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._closed:
            raise FileOperationError(
                "The conversations are closed: the kernel is shutting down.",
                details={"reason": "closed"},
            )
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversations")
        return self._thread.submit(self._guarded, work)

    async def _answer(self, future: Future[T]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise FileOperationError(
                f"{self.path} was not answered within {PATIENCE:.0f} s. Check its disk.",
                details={"path": str(self.path), "reason": "timeout"},
            ) from None

    # In the thread ------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            if is_damage(error) and self._opened is not None:
                self._opened.suspect()
            raise explain(error, self.path) from error

    def _in_transaction(self, work: Callable[[Opened], T], *, reading: bool = False) -> T:
        opened = self._file()
        with transaction(opened.connection, reading=reading):
            return work(opened)

    def _file(self) -> Opened:
        if self._opened is None:
            self._opened = open_file(self.path.parent, self._busy)
        return self._opened

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()
