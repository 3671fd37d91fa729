"""What a file that is not GGUF probably is, from its first bytes, and what to do about it."""

from __future__ import annotations

_STRANGERS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    (
        (b"<htm", b"<HTM", b"<!do", b"<!DO", b"<?xm"),
        "it may be an error page saved by a failed download: download it again",
    ),
    ((b"{", b"["), "it may be an error message saved by a failed download: download it again"),
    ((b"vers",), "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (
        (b"lmgg", b"fmgg", b"tjgg", b"algg"),
        "it is in a format from before GGUF that engines no longer read: download a GGUF file",
    ),
    (
        (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zX", b"Rar!", b"BZh", b"(\xb5/\xfd"),
        "it is an archive or a PyTorch checkpoint: unpack it, or download a GGUF file",
    ),
    ((b"\0\0\0\0",), "it may be a download that never finished: download it again"),
)
_UNKNOWN = "download a GGUF file of the model"


def describe_stranger(start: bytes) -> str:
    """Finish the sentence "x is not a GGUF file" from the file's first four bytes."""
    if not start:
        return ": it is empty. The download may have failed: download it again."
    for beginnings, meaning in _STRANGERS:
        if start.startswith(beginnings):
            return f" (it starts with {start!r}); {meaning}."
    return f" (it starts with {start!r}); {_UNKNOWN}."


def byte_order_swapped(version: int) -> bool:
    """Whether a small number was written in the other byte order, as llama.cpp tests it."""
    return version != 0 and version & 0xFFFF == 0
