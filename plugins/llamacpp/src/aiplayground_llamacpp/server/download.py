"""Fetching a file: goes on where an earlier attempt ended, and counts only with its checksum."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx

from aiplayground.errors import FileOperationError, ServiceNotAvailable

from .release import Asset

ATTEMPTS = 5
"""How often a broken download goes on in a row before it is given up."""

STALL_TIMEOUT = 30.0
"""Seconds without a byte after which the connection is taken for dead."""

PAUSE = 1.0
"""Seconds before the second attempt; twice as long before each further one."""

BLOCK = 2**17
"""Bytes that are written at a time: what a broken connection may cost."""

STEP = 0.005
"""From one word on the progress to the next."""

PART = ".part"


class WrongBytes(FileOperationError):
    """A file that is whole and not the one that was wanted."""


async def fetch(
    http: httpx.AsyncClient,
    url: str,
    asset: Asset,
    folder: Path,
    *,
    stall: float = STALL_TIMEOUT,
    pause: float = PAUSE,
) -> AsyncGenerator[float, None]:
    """Bring a file into `folder`, yielding how much of it is there, 0 to 1.

    What was fetched stays when the generator is closed, and the next call goes on from there. The
    file has its own name only after its SHA-256 was found right. Raises `WrongBytes`, or
    `ServiceNotAvailable` after `ATTEMPTS` attempts that brought nothing more.
    """
    target, part = folder / asset.name, folder / (asset.name + PART)
    if await asyncio.to_thread(_is_whole, target, asset):
        yield 1.0
        return
    failures, most = 0, _size(part)
    while True:
        try:
            async for fraction in _get(http, url, asset, part, stall):
                yield fraction
            break
        except httpx.TransportError as error:
            # More than ever before, that is: a server may begin anew each time.
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise _gave_up(url, error) from error
        await asyncio.sleep(min(pause * 2 ** (failures - 1), 30))
    await asyncio.to_thread(_accept, part, target, asset)


async def _get(
    http: httpx.AsyncClient, url: str, asset: Asset, part: Path, stall: float
) -> AsyncGenerator[float, None]:
    """Append what is missing; anything but the rest of the same file begins it anew."""
    have = _size(part)
    if asset.size and have == asset.size:
        return
    timeout = httpx.Timeout(stall)
    headers = {"Range": f"bytes={have}-"} if have else {}
    # As it is: a compressed transfer would have other places to go on from.
    headers["Accept-Encoding"] = "identity"
    async with http.stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            await asyncio.to_thread(part.unlink)
            raise httpx.ReadError("the server has less than what is here; from the beginning")
        if answer.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise _refused(url, answer.status_code)
        begins = _begin(answer, have)
        total = asset.size or begins + int(answer.headers.get("Content-Length") or 0)
        with part.open("r+b" if begins else "wb") as file:
            file.seek(begins)
            file.truncate()
            told = 0.0
            async for block in answer.aiter_bytes(BLOCK):
                file.write(block)
                if asset.size and file.tell() > asset.size:
                    raise _wrong(asset, f"is longer than the {asset.size} bytes it should have")
                fraction = min(1.0, file.tell() / total) if total else 0.0
                if fraction - told >= STEP:
                    told = fraction
                    yield fraction
    if asset.size and _size(part) < asset.size:
        raise httpx.ReadError("the file ended early")


def _begin(answer: httpx.Response, have: int) -> int:
    """Return the place from which on the answer's bytes are, as the server says it."""
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    begins = int(start) if unit == "bytes" and start.isdecimal() else 0
    if begins > have:
        raise httpx.RemoteProtocolError("the server left a part out")
    return begins


def _accept(part: Path, target: Path, asset: Asset) -> None:
    found = _digest(part)
    if found != asset.sha256:
        part.unlink()
        raise _wrong(asset, f"has the SHA-256 {found} instead of {asset.sha256}")
    part.replace(target)


def _is_whole(path: Path, asset: Asset) -> bool:
    return path.is_file() and _digest(path) == asset.sha256


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _wrong(asset: Asset, what: str) -> WrongBytes:
    return WrongBytes(
        f"{asset.name} {what}: it was damaged or replaced on its way, and is not used. Try again; "
        "if you have set a mirror, check it.",
        details={"file": asset.name},
    )


def _refused(url: str, status: int) -> ServiceNotAvailable:
    return ServiceNotAvailable(
        f"{url} answers with HTTP {status}. Check the setting 'llama_server_mirror', or name a "
        "llama-server of your own in 'llama_server'.",
        details={"url": url, "status": status},
    )


def _gave_up(url: str, error: Exception) -> ServiceNotAvailable:
    return ServiceNotAvailable(
        f"{url} cannot be fetched: {str(error) or type(error).__name__}. Check the connection and "
        "set up again; it goes on where it ended.",
        details={"url": url},
    )
