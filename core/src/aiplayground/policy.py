"""When to restart, when something hangs, what to evict, how often to ask: pure functions.

Nothing here waits, reads a clock or touches a process; every figure comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Exponential backoff in seconds: `base * factor**n`, at most `cap`, with jitter.

    After `limit` restarts in a row it gives up; `stable_after` seconds of running forgive all.
    """

    limit: int
    base: float
    factor: float
    cap: float
    jitter: float
    stable_after: float

    def delay(self, failures: int, noise: float) -> float | None:
        """Return the seconds to wait after the n-th failure in a row, None to give up.

        `noise` is a random number from 0 to 1.
        """
        if failures > self.limit:
            return None
        try:
            exponential = min(self.cap, self.base * float(self.factor) ** (failures - 1))
        except OverflowError:
            exponential = self.cap
        return exponential * (1 + self.jitter * noise)

    def count(self, failures: int, ran_for: float) -> int:
        """Return how many failures in a row there are after one more."""
        return 1 if ran_for >= self.stable_after else failures + 1


def start_deadline(
    began: float, last_progress: float, timeout: float, patience: float = 10
) -> float:
    """Return the moment at which a start is given up: progress renews it, `patience` times over."""
    return min(last_progress + timeout, began + timeout * patience)


@dataclass(slots=True, kw_only=True)
class Liveness:
    """Whether a running worker hangs.

    Hung means that probes fail for `limit` seconds *and* its tree used no CPU and logged nothing;
    after `patience` times the limit regardless. A jump between wall and monotonic clock, which a
    laptop's sleep makes, restarts the count.
    """

    limit: float
    patience: float = 10
    jump: float = 5
    busy_cpu: float = 0.01
    _failing_since: float | None = field(default=None, init=False)
    _quiet_since: float | None = field(default=None, init=False)
    _last: tuple[float, float, float, int] | None = field(default=None, init=False)

    def observe(self, *, now: float, wall: float, ok: bool, cpu: float, lines: int) -> bool:
        """Take one probe's result and return whether the worker is hung.

        `now` and `wall` are seconds on the monotonic and the wall clock, `cpu` the seconds that
        the tree has used, `lines` the number of lines that it has logged.
        """
        slept, active = self._compare(now, wall, cpu, lines)
        if ok or slept:
            self._failing_since = self._quiet_since = None
            return False
        if self._failing_since is None:
            self._failing_since = now
        if active or self._quiet_since is None:
            self._quiet_since = now
        return (
            now - self._quiet_since >= self.limit
            or now - self._failing_since >= self.limit * self.patience
        )

    def _compare(self, now: float, wall: float, cpu: float, lines: int) -> tuple[bool, bool]:
        last, self._last = self._last, (now, wall, cpu, lines)
        if last is None:
            return False, False
        slept = abs((wall - last[1]) - (now - last[0])) > self.jump
        return slept, cpu - last[2] > self.busy_cpu or lines != last[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model in memory as the eviction policy sees it; times are monotonic seconds."""

    model: str
    busy: int
    last_used: float
    pinned: bool


def to_evict(residents: Sequence[Resident], limit: int) -> str | None:
    """Return the model that makes room: the least recently used that is neither busy nor pinned.

    Pinned models count towards the limit. None: nothing can go now.
    """
    if len(residents) < limit:
        return None
    free = [each for each in residents if not each.busy and not each.pinned]
    return min(free, key=lambda each: each.last_used).model if free else None


def expired(residents: Iterable[Resident], now: float, idle_timeout: float) -> list[str]:
    """Return the models that nobody has used for `idle_timeout` seconds (0: never)."""
    if idle_timeout <= 0:
        return []
    return [
        each.model
        for each in residents
        if not each.busy and not each.pinned and now - each.last_used >= idle_timeout
    ]


def next_expiry(residents: Iterable[Resident], now: float, idle_timeout: float) -> float | None:
    """Return the seconds until a model may expire, None if none will."""
    if idle_timeout <= 0:
        return None
    due = [
        each.last_used + idle_timeout - now
        for each in residents
        if not each.busy and not each.pinned
    ]
    return max(0.0, min(due)) if due else None
