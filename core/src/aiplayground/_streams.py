"""Answers in progress: how a stop or a shutdown ends one without waiting for its consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from .errors import AIPlaygroundError, FailureClass, ServiceFailed

MakeError = Callable[[], AIPlaygroundError]


class _Stream:
    """One answer in progress.

    An abort cancels the consumer's task while it waits for the next item, and turns that into an
    error, the way `asyncio.timeout` does. Nothing is paid for it between items.
    """

    __slots__ = ("_cancelled_for", "_error", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._error: AIPlaygroundError | None = None
        self._cancelled_for: AIPlaygroundError | None = None

    def abort(self, error: AIPlaygroundError) -> None:
        """End the answer with this error, at once if its consumer is waiting."""
        if self._error is None:
            self._error = error
            if self._task is not None and self._task.cancel():
                self._cancelled_for = error

    def begin(self) -> int:
        """Let an abort cancel the current task until `end`; returns what `end` is to be given."""
        if self._error is not None:
            raise self._error
        self._task = task = asyncio.current_task()
        return task.cancelling() if task is not None else 0

    def end(self, cancelling: int) -> None:
        """Raise the error of an abort if that is all that cancelled the task."""
        task, self._task = self._task, None
        error = self._cancelled_for
        # Our own cancellation, whatever the source made of it. Were it more than that, the
        # consumer itself was cancelled too, and stays so.
        if error is not None and task is not None and task.uncancel() <= cancelling:
            raise error from None

    async def next(self, source: AsyncGenerator[Any, None], patience: float) -> Any:
        """Return the next item, waiting at most `patience` seconds for it."""
        cancelling = self.begin()
        deadline = asyncio.timeout(patience)
        try:
            async with deadline:
                item = await anext(source)
            if deadline.expired():
                raise _too_slow(patience)  # whatever the source made of its cancellation
            return item
        except TimeoutError:
            if not deadline.expired():
                raise  # a time-out of somebody else's
            raise _too_slow(patience) from None
        finally:
            self.end(cancelling)


def _too_slow(patience: float) -> ServiceFailed:
    return ServiceFailed(
        f"The engine sent nothing for {patience:.0f} s; the answer was given up. "
        f"If the model is slow, raise the setting 'timeouts.answer'.",
        failure=FailureClass.TIMEOUT,
    )


class _Hold:
    """A block that counts as an answer; a class, because every request makes one."""

    __slots__ = ("_cancelling", "_stream", "_streams")

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def __enter__(self) -> None:
        self._stream = self._streams.add()
        self._cancelling = self._stream.begin()

    def __exit__(self, *exc: object) -> None:
        self._streams.discard(self._stream)
        self._stream.end(self._cancelling)


class Streams:
    """All answers in progress of one service."""

    def __init__(self) -> None:
        self._active: set[_Stream] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._active)

    async def run(
        self, source: AsyncGenerator[Any, None], patience: float
    ) -> AsyncGenerator[Any, None]:
        """Yield the items of an answer, which counts as active meanwhile."""
        stream = self.add()
        try:
            while True:
                try:
                    item = await stream.next(source, patience)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            try:
                await source.aclose()
            finally:
                self.discard(stream)

    def hold(self) -> _Hold:
        """Count the block as an answer in progress; an abort cancels it and raises its error."""
        return _Hold(self)

    def add(self) -> _Stream:
        """Count one more answer in progress, until `discard`."""
        stream = _Stream()
        self._active.add(stream)
        self._idle.clear()
        return stream

    def discard(self, stream: _Stream) -> None:
        """Count it no more."""
        self._active.discard(stream)
        if not self._active:
            self._idle.set()

    def abort(self, make_error: MakeError) -> None:
        """End every answer with an error of its own."""
        for stream in list(self._active):
            stream.abort(make_error())

    async def drained(self) -> None:
        """Wait until no answer is in progress."""
        await self._idle.wait()
