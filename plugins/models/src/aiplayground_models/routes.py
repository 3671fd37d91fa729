"""`POST /api/downloadModel`: a download as server-sent events.

Closing the connection cancels the download, unless somebody else waits for it: a plain HTTP client
has no other way to say so, and what came is kept.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aiplayground.api import ModelDownloadInfo
from aiplayground.errors import AIPlaygroundError, ErrorCode, InvalidParameters
from aiplayground.validation import parse

from .download import Download, DownloadInfo, Status
from .manager import DownloadManager
from .meter import eta_text, speed_text

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

LONGEST_BODY = 2**20
KERNEL = "aiplayground.kernel"


class Body(BaseModel):
    """What the API reference has clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: ModelDownloadInfo


async def download_model(request: Request) -> Response:
    """Begin or join a download and tell how it goes, until it ends."""
    kernel: Kernel = request.scope[KERNEL]
    try:
        body = parse(Body, await _fields(request))
        manager = kernel.part(DownloadManager)
        download = manager.start(body.data, keep=False)
    except AIPlaygroundError as error:
        status = 400 if error.code is ErrorCode.INVALID_PARAMETERS else 503
        return JSONResponse(error.to_dict(), status)
    return StreamingResponse(
        _events(manager, download),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _fields(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise InvalidParameters("The body is too long.", details={"reason": "too-large"})
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise InvalidParameters("The body must be a JSON object.", details={"field": "body"})
    return fields


async def _events(manager: DownloadManager, download: Download) -> AsyncGenerator[bytes, None]:
    download.waiters += 1
    try:
        async with aclosing(download.follow()) as steps:
            async for info in steps:
                yield b"data: " + json.dumps(event_of(info), ensure_ascii=False).encode() + b"\n\n"
    finally:
        download.waiters -= 1
        manager.drop(download)


def event_of(info: DownloadInfo) -> dict[str, Any]:
    """Return the data of one event, as the API reference has it, with what we add."""
    event: dict[str, Any] = {"status": str(info.status), "id": info.id, "repo": info.repo}
    if info.status is Status.COMPLETE:
        return event | {"progress": 100, "path": str(info.path)}
    if info.status is Status.ERROR and info.error is not None:
        return event | info.error.to_dict()
    event |= {"progress": info.progress, "filename": info.filename, "downloaded": info.downloaded}
    optional = {
        "total": info.total,
        "speed": speed_text(info.speed),
        "eta": eta_text(info.eta),
        "message": info.error.message if info.error else info.message or None,
    }
    return event | {name: value for name, value in optional.items() if value is not None}


ROUTES = [Route("/api/downloadModel", download_model, methods=["POST"])]
