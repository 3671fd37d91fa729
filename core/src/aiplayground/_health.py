"""Watching a backend without workers: there is no process to look at, so it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ._clock import now, wall
from .errors import AIPlaygroundError, FailureClass, ServiceFailed
from .policy import Liveness

if TYPE_CHECKING:
    from .settings import LivenessSettings
    from .specs import Health

Ask = Callable[[], Awaitable["Health | None"]]


async def watch(
    service: str, ask: Ask, settings: LivenessSettings, tell: Callable[[ServiceFailed | None], None]
) -> None:
    """Ask for ever; `tell` hears of each change: what is wrong, None when it is well again.

    It is not well as soon as it says so, and when it has not answered for the limit.
    """
    liveness = Liveness(limit=settings.limit, patience=settings.hard_factor)
    well = True
    while True:
        await asyncio.sleep(settings.interval)
        error, sure = await _ask(service, ask)
        hung = liveness.observe(now=now(), wall=wall(), ok=error is None, cpu=0, lines=0)
        if well and error is not None and (sure or hung):
            well = False
            tell(error)
        elif not well and error is None:
            well = True
            tell(None)


async def _ask(service: str, ask: Ask) -> tuple[ServiceFailed | None, bool]:
    """Return what is wrong, if anything, and whether the backend itself says so."""
    try:
        answer = await ask()
    except AIPlaygroundError as error:
        failure = error.failure if isinstance(error, ServiceFailed) else FailureClass.HUNG
        return ServiceFailed(error.message, failure=failure, details=error.details), False
    if answer is None or answer.ok:
        return None, True
    return unhealthy(service, answer, "is not healthy any more"), True


def unhealthy(service: str, answer: Health, what: str) -> ServiceFailed:
    """Say that the backend itself told us that it is not well."""
    return ServiceFailed(
        f"{service} {what}: {answer.detail or 'no reason'}",
        failure=FailureClass.EXIT,
        details={"service": service},
    )
