"""The downloads of one kernel: several at once, each in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import (
    AIPlaygroundError,
    InvalidParameters,
    ServiceNotAvailable,
    from_dict,
)
from aiplayground.models import checked_kind
from aiplayground.secrets import HF_TOKEN

from .child import END_LIMIT, messages
from .download import Download, DownloadCancelled, DownloadInfo, Request, Status
from .fetcher.job import Job, Network
from .network import endpoint_of, network_of
from .place import base_of, destination
from .source import parse_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiplayground.api import ModelDownloadInfo
    from aiplayground.kernel import Kernel
    from aiplayground.settings import HubSettings

KEPT = 100
"""Downloads that have ended and are still listed; the oldest go."""

EVERY = 0.2
"""Seconds from one event of a download to the next, while only its figures change."""


class DownloadManager:
    """Owns the downloads of a kernel: `kernel.part(DownloadManager)` returns it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._downloads: dict[str, Download] = {}
        self._numbers = itertools.count(1)
        self._prefix = secrets.token_hex(2)
        self._slots = asyncio.Semaphore(self._settings.parallel)
        self._secrets = kernel.secrets

    # Asking -------------------------------------------------------------------------------

    def start(self, asked: ModelDownloadInfo, *, keep: bool = True) -> Download:
        """Begin a download, or join the one of the same that is on its way.

        With `keep` it goes on when nobody waits for it. Raises `InvalidParameters`; what goes wrong
        later is in its `info`.
        """
        request = self.request(asked)
        there = self._downloads.values()
        download = next((e for e in there if e.request == request and not e.info.ended), None)
        if download is not None:
            download.kept |= keep
            return download
        download = Download(f"{self._prefix}-{next(self._numbers)}", request)
        download.kept = keep
        self._downloads[download.id] = download
        self._forget()
        download.task = asyncio.create_task(self._run(download), name=f"download {download.id}")
        download.task.add_done_callback(lambda _: self._ended(download))
        return download

    async def download(self, asked: ModelDownloadInfo) -> DownloadInfo:
        """Begin or join a download, and wait until it is complete.

        It goes on when the caller is cancelled. Raises what it failed with, or `DownloadCancelled`.
        """
        return await self.wait(self.start(asked))

    async def wait(self, download: Download) -> DownloadInfo:
        """Wait for a download; raises what it failed with, or `DownloadCancelled`."""
        download.waiters += 1
        try:
            async with aclosing(download.follow()) as steps:
                async for _ in steps:
                    pass
        finally:
            download.waiters -= 1
        if download.info.error is not None:
            raise download.info.error
        return download.info

    def list(self) -> list[DownloadInfo]:
        """Return the downloads, those that ended lately included, the newest last."""
        return [each.info for each in self._downloads.values()]

    def get(self, number: str) -> Download:
        """Return a download by its id. Raises `InvalidParameters`."""
        try:
            return self._downloads[number]
        except KeyError:
            raise InvalidParameters(
                f"There is no download '{number[:64]}'. listDownloads names those there are.",
                details={"field": "id", "reason": "no-download"},
            ) from None

    async def cancel(self, number: str) -> DownloadInfo:
        """End a download; what came is kept, and the next one of the same goes on there.

        One that has ended stays as it is. Raises `InvalidParameters` for an unknown id.
        """
        download = self.get(number)
        await self._cancel(download)
        return download.info

    def drop(self, download: Download) -> None:
        """End a download if nobody wants it any more, without waiting for its end."""
        wanted = download.kept or download.waiters or download.info.ended
        if download.task is not None and not wanted:
            download.task.cancel()

    async def aclose(self) -> None:
        """Cancel everything; called when the kernel goes down."""
        await asyncio.gather(*(self._cancel(each) for each in self._downloads.values()))
        tasks = [each.task for each in self._downloads.values() if each.task is not None]
        if tasks:  # a process that has said its last word may still be ending
            await asyncio.wait(tasks, timeout=END_LIMIT)

    def request(self, asked: ModelDownloadInfo) -> Request:
        """Check what was asked for. Raises `InvalidParameters`."""
        source = parse_source(asked.repo, self.endpoint)
        kind = checked_kind(asked.type or "llm")
        paths = tuple(each for each in (asked.filename, *asked.files, source.path) if each)
        if source.quant and (paths or asked.include or asked.exclude):
            raise InvalidParameters(
                f"'{source.quant}' names a quantization, and there are files as well: give one of "
                "the two.",
                details={"field": "repo"},
            )
        if paths and (asked.include or asked.exclude):
            raise InvalidParameters(
                "Give files or patterns, not both.", details={"field": "filename"}
            )
        folder = destination(self._kernel.model_paths, asked.destination, source.repo, kind)
        return Request(
            repo=source.repo,
            kind=kind,
            folder=folder,
            base=base_of(self._kernel.model_paths, folder),
            revision=asked.revision or source.revision,
            quant=source.quant,
            paths=paths,
            include=asked.include,
            exclude=asked.exclude,
        )

    @property
    def endpoint(self) -> str:
        """The address of the Hub."""
        return endpoint_of(self._settings)

    async def network(self) -> Network:
        """Return how the Hub is reached, with the token. Raises `FileOperationError`."""
        token = await asyncio.to_thread(self._secrets.get, HF_TOKEN)
        return network_of(self._settings, token)

    # Doing --------------------------------------------------------------------------------

    async def _run(self, download: Download) -> None:
        """Do a download; its task, and the only writer of its state."""
        try:
            self._tell(download.info)
            async with self._slots:
                await self._fetch(download)
        except AIPlaygroundError as error:
            self._tell(download.change(status=Status.ERROR, error=error, speed=None, eta=None))
        except Exception as error:  # noqa: BLE001  # whoever waits must hear of it
            self._kernel.log().logger.exception("a download failed: %s", type(error).__name__)
            told = AIPlaygroundError(f"The download failed unexpectedly: {type(error).__name__}.")
            self._tell(download.change(status=Status.ERROR, error=told, speed=None, eta=None))

    async def _fetch(self, download: Download) -> None:
        request = download.request
        job = Job(
            network=await self.network(),
            repo=request.repo,
            revision=request.revision,
            quant=request.quant,
            paths=request.paths,
            include=request.include,
            exclude=request.exclude,
            folder=str(request.folder),
            base=str(request.base),
            connections=self._settings.connections,
            keep_days=self._settings.keep_partial,
        )
        told = 0.0
        clock = asyncio.get_running_loop().time
        async with aclosing(messages(job, self._log)) as said:
            async for message in said:
                before = download.info.status
                info = self._take(download, message, clock())
                if info.status is not before or clock() - told >= EVERY:
                    told = clock()
                    self._tell(info)
        if not download.info.ended:
            raise ServiceNotAvailable("The process that downloads ended without a word.")

    def _take(self, download: Download, message: Mapping[str, Any], moment: float) -> DownloadInfo:
        match message["event"]:
            case "plan":
                total, filename = message["total"], message["file"]
                return download.change(total=total, filename=filename)
            case "progress":
                return download.moved(moment, message["done"])
            case "status":
                status = Status(message["status"])
                return download.change(status=status, message=message["message"])
            case "done":
                return self._done(download, message)
            case _:
                raise from_dict(message["error"])

    def _done(self, download: Download, message: Mapping[str, Any]) -> DownloadInfo:
        total = download.info.total
        return download.change(
            status=Status.COMPLETE,
            message="",
            progress=100.0,
            downloaded=total if total is not None else download.info.downloaded,
            eta=None,
            path=Path(message["path"]),
            files=tuple(map(Path, message["files"])),
        )

    def _ended(self, download: Download) -> None:
        """Take note of a task that was cancelled, perhaps before it ran at all.

        One that has said its last word may still wait for the end of its process.
        """
        if download.task is None or not download.task.cancelled() or download.info.ended:
            return
        error = DownloadCancelled(
            f"The download of {download.info.filename} was cancelled. What came is kept: ask "
            "again, and it goes on there.",
            details={"reason": "cancelled", "id": download.id},
        )
        self._tell(download.change(status=Status.CANCELLED, error=error, speed=None, eta=None))

    async def _cancel(self, download: Download) -> None:
        if download.task is not None and not download.info.ended:
            download.task.cancel()
            await asyncio.wait([download.task])

    def _tell(self, info: DownloadInfo) -> None:
        self._kernel.publish(info.event())

    def _forget(self) -> None:
        ended = [each.id for each in self._downloads.values() if each.info.ended]
        for number in ended[: max(0, len(ended) - KEPT)]:
            del self._downloads[number]

    def _log(self, line: str) -> None:
        self._kernel.log().logger.info("download: %s", self._secrets.hide(line))

    @property
    def _settings(self) -> HubSettings:
        return self._kernel.settings.hub
