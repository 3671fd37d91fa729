"""Leases: a worker that speaks the OpenAI API, held for one request that goes to it directly.

A door that passes bytes through takes one from `Kernel.lease`. While it is held the model stays in
memory, and the request counts among the answers in progress: a shutdown waits for it, a stop ends
it with an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import AIPlaygroundError


@dataclass(frozen=True, slots=True)
class Lease:
    """What a request needs to reach a worker; `model` is the name that the worker knows."""

    service: str
    model: str
    base_url: str
    lost: Callable[[Exception], Awaitable[AIPlaygroundError]]
    """Turns a broken connection into an error that says why the worker went away."""
