"""One download: what was asked for, how far it is, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from aiplayground.errors import AIPlaygroundError
from aiplayground.events import ModelDownloadProgress

from .meter import Meter, eta_text, percent, speed_text


class Status(StrEnum):
    """Where a download stands; the last three are for good."""

    QUEUED = "queued"
    RESOLVING = "resolving"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    ERROR = "error"


ENDED = frozenset({Status.COMPLETE, Status.CANCELLED, Status.ERROR})


class DownloadCancelled(AIPlaygroundError):
    """A download was cancelled; what came is kept for the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to download, checked: two of the same are one download."""

    repo: str
    kind: str
    folder: Path
    base: Path
    revision: str | None = None
    quant: str | None = None
    paths: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called before its files are known."""
        return self.paths[0] if len(self.paths) == 1 else self.repo


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadInfo:
    """How a download stands. Sizes in bytes, `speed` in bytes a second, `eta` in seconds.

    `progress` is 0 to 100, which is for what is complete alone. `path` is where the model lies in
    the end: a file, or the folder of several.
    """

    id: str
    repo: str
    type: str
    filename: str
    folder: Path
    status: Status
    message: str = ""
    progress: float = 0.0
    downloaded: int = 0
    total: int | None = None
    speed: float | None = None
    eta: float | None = None
    path: Path | None = None
    files: tuple[Path, ...] = ()
    error: AIPlaygroundError | None = None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED

    def event(self) -> ModelDownloadProgress:
        """Return it as the kernel's event."""
        message = self.error.message if self.error is not None else self.message
        return ModelDownloadProgress(
            filename=self.filename,
            progress=self.progress,
            speed=speed_text(self.speed),
            eta=eta_text(self.eta),
            id=self.id,
            repo=self.repo,
            status=str(self.status),
            downloaded=self.downloaded,
            total=self.total,
            message=message or None,
        )


class Download:
    """A download of a manager. One task writes it; anybody may look, wait or follow."""

    def __init__(self, number: str, request: Request) -> None:
        self.request = request
        self.waiters = 0
        self.kept = False
        """Whether it goes on when nobody waits for it."""
        self.task: asyncio.Task[None] | None = None
        self._meter = Meter()
        self._wake = asyncio.Event()
        self._version = 0
        self.info = DownloadInfo(
            id=number,
            repo=request.repo,
            type=request.kind,
            filename=request.label,
            folder=request.folder,
            status=Status.QUEUED,
        )

    @property
    def id(self) -> str:
        """Its number, unique in a kernel."""
        return self.info.id

    def moved(self, moment: float, done: int) -> DownloadInfo:
        """Take note that `done` bytes are here at a moment of the loop's clock."""
        self._meter.add(moment, done)
        total = self.info.total
        return self.change(
            downloaded=done,
            progress=percent(done, total),
            speed=self._meter.speed,
            eta=self._meter.eta(total),
        )

    def change(self, **fields: object) -> DownloadInfo:
        """Replace fields of `info`, and wake those who follow."""
        self.info = replace(self.info, **fields)  # type: ignore[arg-type]  # names are those of info
        self._version += 1
        self._wake.set()
        self._wake = asyncio.Event()
        return self.info

    async def follow(self) -> AsyncGenerator[DownloadInfo, None]:
        """Yield how it stands now and after each change, the last state included."""
        seen = -1
        while True:
            wake = self._wake
            if seen != self._version:
                seen = self._version
                info = self.info
                yield info
                if info.ended:
                    return
                continue
            await wake.wait()
