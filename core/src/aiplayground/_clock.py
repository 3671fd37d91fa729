"""The kernel's clock: the event loop's, so that a test can put another in its place.

Whatever waits does so on the loop; what compares moments reads the same clock here. A loop with a
virtual clock (`aiplayground.testing.VirtualLoop`) moves both.
"""

from __future__ import annotations

import asyncio
import time


def now() -> float:
    """Return monotonic seconds, as the running loop counts them."""
    return asyncio.get_running_loop().time()


def wall() -> float:
    """Return epoch seconds: the running loop's, if it has a wall clock of its own."""
    own = getattr(asyncio.get_running_loop(), "wall_time", None)
    return float(own()) if own is not None else time.time()
