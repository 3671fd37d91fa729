"""Files that the Hub stores in Xet: the same bytes, fetched as chunks by `hf_xet`.

`huggingface_hub` writes such a file anew each time. The stream of `hf_xet` has the bytes in their
order from any place on, so a download goes on where it ended, over Xet or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from aiplayground_models.selection import RemoteFile

from .faults import Later
from .hub import Hub


def blocks_from(hub: Hub, file: RemoteFile, commit: str, start: int) -> Iterator[bytes] | None:
    """Return the bytes of a file from `start` on; None if it is not stored so, or cannot be had.

    Raises what asking for a file's metadata does.
    """
    stored = hub.metadata(file.path, commit).xet_file_data
    if stored is None:
        return None
    if find_spec("hf_xet") is None:
        return None  # no wheel for this platform: the same bytes come over HTTP
    return _stream(hub, stored, file, start)


def _stream(hub: Hub, stored: Any, file: RemoteFile, start: int) -> Iterator[bytes]:
    import hf_xet

    headers = hub.headers()
    plain = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    try:
        group = hf_xet.XetSession().new_download_stream_group(
            token_refresh_url=stored.refresh_route,
            token_refresh_headers=headers,
            custom_headers=plain,
        )
        info = hf_xet.XetFileInfo(stored.file_hash, file.size)
        yield from group.download_stream(info, start=start or None)
    except Exception as error:  # native code raises plain RuntimeError, among others
        raise Later(f"Xet: {type(error).__name__}: {error}"[:300]) from error
