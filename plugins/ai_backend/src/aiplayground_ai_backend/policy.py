"""Who is next in a backend's queue, where somebody stands in it, when to come back: pure functions.

Urgent requests come first; among equals the client with the fewest requests in progress, then the
one that came first. Waiting makes a request more urgent, so that none waits for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

AGEING = 30.0
"""Seconds of waiting after which a request counts as one step more urgent."""

MAX_RETRY_AFTER = 60


class Priority(IntEnum):
    """How urgent a request is."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in a queue; `since` is in seconds on the clock that `now` is on."""

    number: int
    client: str
    priority: Priority
    since: float


def urgency(ticket: Ticket, active: Mapping[str, int], now: float) -> tuple[int, int, int]:
    """Return what tickets are ordered by: the smallest is next."""
    aged = ticket.priority - int((now - ticket.since) / AGEING)
    return (max(aged, 0), active.get(ticket.client, 0), ticket.number)


def next_up(waiting: Sequence[Ticket], active: Mapping[str, int], now: float) -> Ticket | None:
    """Return the ticket that is next; `active` counts the requests in progress by client."""
    return min(waiting, key=lambda each: urgency(each, active, now), default=None)


def position(ticket: Ticket, waiting: Sequence[Ticket], active: Mapping[str, int]) -> int:
    """Return how many are to go until the ticket is served; 1: it is next."""
    mine = urgency(ticket, active, ticket.since)
    return 1 + sum(urgency(each, active, ticket.since) < mine for each in waiting)


def retry_after(waiting: int, active: int, mean: float) -> int:
    """Return the whole seconds after which there should be room; `mean` is what a request takes."""
    rounds = waiting / max(active, 1)
    return max(1, min(MAX_RETRY_AFTER, math.ceil(mean * max(rounds, 1))))
