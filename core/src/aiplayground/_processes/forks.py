"""Descriptors that must not live on in forked copies of this process.

Close-on-exec keeps a descriptor from programs, but not from a bare fork (`multiprocessing` in an
embedder's program): the copy would hold lifelines open, and locks held, after the kernel has died.
"""

from __future__ import annotations

import os

_private: set[int] = set()


def close_in_forks(fd: int) -> None:
    """Have forked children of this process close their copy of `fd` at once."""
    _private.add(fd)


def close(fd: int) -> None:
    """Close a descriptor that was given to `close_in_forks`."""
    _private.discard(fd)
    os.close(fd)


def _in_child() -> None:
    while _private:
        os.close(_private.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
