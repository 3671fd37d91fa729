"""The IPC methods of downloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from aiplayground.api import Answer, ModelDownloadInfo

from .download import DownloadInfo
from .manager import DownloadManager
from .meter import eta_text, speed_text

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

Id = Annotated[str, Field(min_length=1, max_length=64)]


class DownloadState(Answer):
    """A download as `listDownloads` has it; sizes in bytes, `error` as everywhere."""

    id: str
    repo: str
    type: str
    filename: str
    status: Literal[
        "queued", "resolving", "waiting", "downloading", "verifying", "complete", "cancelled",
        "error",
    ]  # fmt: skip
    progress: float
    downloaded: int
    total: int | None = None
    speed: str | None = None
    eta: str | None = None
    message: str | None = None
    destination: str
    path: str | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def of(cls, info: DownloadInfo) -> DownloadState:
        """Return a download as it looks from outside."""
        return cls(
            id=info.id,
            repo=info.repo,
            type=info.type,
            filename=info.filename,
            status=info.status.value,
            progress=info.progress,
            downloaded=info.downloaded,
            total=info.total,
            speed=speed_text(info.speed),
            eta=eta_text(info.eta),
            message=info.message or None,
            destination=str(info.folder),
            path=str(info.path) if info.path else None,
            error=info.error.to_dict() if info.error else None,
        )


async def download_model(kernel: Kernel, model_info: ModelDownloadInfo) -> None:
    """Download a model; returns when it is complete, rejects with the reason if it fails.

    `modelDownloadProgress` events tell how far it is. It goes on when the caller goes away.
    """
    await kernel.part(DownloadManager).download(model_info)


async def start_download(kernel: Kernel, model_info: ModelDownloadInfo) -> DownloadState:
    """Begin a download and return at once, with its id; or join the one of the same."""
    return DownloadState.of(kernel.part(DownloadManager).start(model_info).info)


async def list_downloads(kernel: Kernel) -> list[DownloadState]:
    """Return the downloads that are on their way, and those that ended lately."""
    return [DownloadState.of(each) for each in kernel.part(DownloadManager).list()]


async def cancel_download(kernel: Kernel, id: Id) -> DownloadState:  # noqa: A002  # its outside name
    """End a download. What came is kept: asked for again, it goes on there."""
    return DownloadState.of(await kernel.part(DownloadManager).cancel(id))


METHODS: Mapping[str, Callable[..., Any]] = {
    "downloadModel": download_model,
    "startDownload": start_download,
    "listDownloads": list_downloads,
    "cancelDownload": cancel_download,
}
