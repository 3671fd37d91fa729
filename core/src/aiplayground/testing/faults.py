"""Faults as data, and plans that draw them from a seed.

A fault says what goes wrong; `aiplayground.testing.injection` makes it happen. A plan draws the
same faults from the same seed, so a failure can be repeated: print the plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    """What can be made to go wrong from outside a backend."""

    KILL = "kill"
    """SIGKILL to the worker's program."""
    FREEZE = "freeze"
    """SIGSTOP to the worker's program: it hangs, and ignores SIGTERM."""
    CUT = "cut"
    """The connection to the worker breaks at byte `at` of the next answer."""
    STALL = "stall"
    """Nothing comes through after byte `at` of the next answer; the connection stays open."""
    REPLY = "reply"
    """The next request is answered with `reply` in place of the worker's answer."""
    SLOW_START = "slow-start"
    """The next launches log `steps` lines, `seconds` apart, before the program runs."""
    EXIT_AT_START = "exit-at-start"
    """The next launches end with `exit_code` before the program runs."""
    NEVER_READY = "never-ready"
    """The next launches run nothing, and are given `seconds` to become ready."""
    GARBAGE = "garbage"
    """The next launches print `at` bytes of what is no text."""
    HELPER = "helper"
    """The next launches have a helper process that holds their pipes and ignores SIGTERM."""


LAUNCH_FAULTS = frozenset(
    {
        FaultKind.SLOW_START,
        FaultKind.EXIT_AT_START,
        FaultKind.NEVER_READY,
        FaultKind.GARBAGE,
        FaultKind.HELPER,
    }
)
"""Faults of a worker's start; they hold for each launch until `calm`."""

STREAM_FAULTS = frozenset({FaultKind.CUT, FaultKind.STALL, FaultKind.REPLY})
"""Faults of the connection; each one happens to one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `at` is in bytes, `seconds` in seconds; what a kind does not use is ignored."""

    kind: FaultKind
    at: int = 0
    seconds: float = 0.2
    steps: int = 3
    exit_code: int = 3
    reset: bool = True
    """CUT: with a reset (else with an orderly end of the connection)."""
    reply: bytes = b""

    def launch_options(self, helper_note: str) -> Mapping[str, Any]:
        """Return the options of `_wrap` for a fault of a launch."""
        options: dict[FaultKind, dict[str, Any]] = {
            FaultKind.SLOW_START: {"chatter": self.steps, "pause": self.seconds},
            FaultKind.EXIT_AT_START: {"exit": self.exit_code},
            FaultKind.NEVER_READY: {"hold": True},
            FaultKind.GARBAGE: {"garbage": self.at},
            FaultKind.HELPER: {"helper": helper_note},
        }
        return options[self.kind]


@dataclass(slots=True)
class FaultPlan:
    """Draws faults from a seed: the same seed, the same faults in the same order.

        plan = FaultPlan(7)
        for fault in plan.draw(10):
            ...

    `repr(plan)` is what to write down to repeat it.
    """

    seed: int
    kinds: Sequence[FaultKind] = tuple(FaultKind)
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, count: int) -> list[Fault]:
        """Return the next `count` faults."""
        return [self.next() for _ in range(count)]

    def next(self) -> Fault:
        """Return the next fault."""
        return Fault(
            kind=self._random.choice(list(self.kinds)),
            at=self._random.randrange(4096),
            seconds=round(self._random.uniform(0.05, 0.3), 3),
            steps=self._random.randint(1, 4),
            exit_code=self._random.randint(1, 120),
            reset=self._random.random() < 0.5,
            reply=self._random.randbytes(self._random.randrange(1, 64)),
        )

    def positions(self, total: int, count: int) -> list[int]:
        """Return `count` places in `total` bytes, in order; the first is always 0."""
        places = [self._random.randrange(max(1, total)) for _ in range(count - 1)]
        return sorted([0, *places])

    def pause(self, limit: float) -> float:
        """Return a number of seconds up to `limit`: how long to wait before the next step."""
        return self._random.uniform(0, limit)
