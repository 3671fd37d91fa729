"""Speed and remaining time of a download, and how they are written."""

from __future__ import annotations

from collections import deque

WINDOW = 5.0
"""Seconds that the speed is taken over: long enough to be steady, short enough to be true."""


class Meter:
    """Measures speed in bytes a second; what is there before the first look does not count."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, moment: float, done: int) -> None:
        """Note how many bytes are there at a moment (seconds)."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # the server began anew
        self._seen.append((moment, done))
        while len(self._seen) > 2 and moment - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    @property
    def speed(self) -> float | None:
        """Bytes a second; None until two looks are apart."""
        if len(self._seen) < 2:
            return None
        (began, had), (now, has) = self._seen[0], self._seen[-1]
        return (has - had) / (now - began) if now > began else None

    def eta(self, total: int | None) -> float | None:
        """Seconds that the rest takes at this speed; None where that cannot be said."""
        speed = self.speed
        if not self._seen or not speed or total is None:
            return None
        return max(0.0, (total - self._seen[-1][1]) / speed)


def percent(done: int, total: int | None) -> float:
    """Return the progress from 0 to 100; 100 is for what is complete alone."""
    if not total:
        return 0.0
    return min(99.9, round(100 * done / total, 1))


def speed_text(speed: float | None) -> str | None:
    """Write a speed as the API reference does: `12.5 MB/s`."""
    if speed is None:
        return None
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)):
        if speed >= size:
            return f"{speed / size:.1f} {unit}"
    return f"{speed:.0f} B/s"


def eta_text(seconds: float | None) -> str | None:
    """Write a time that remains: `1 h 05 min`, `2 min 30 s`, `12 s`."""
    if seconds is None:
        return None
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"
