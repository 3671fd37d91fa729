"""What happens when the caller goes away. The engine is held in mid-answer by the gate."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiplayground.specs import Capability
from aiplayground.testing.faults import Fault, FaultKind
from aiplayground.testing.lab import Asking, Broken, expect_code

from . import declares, rule

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

CHAT = "docs/reference/hooks.md#chat"
PROMPT = 5.0
"""Seconds in which the connection to the engine must be closed; only a hang reaches them."""


async def _held(lab: Lab, part: float) -> Asking:
    """Begin an answer that the gate holds after this part of it."""
    total = await lab.measured()
    stalled = sum(gate.stalled for gate in lab.gates)
    lab.plan(Fault(kind=FaultKind.STALL, at=int(total * part)))
    asking = await lab.asking()
    await lab.until(
        lambda: sum(gate.stalled for gate in lab.gates) > stalled or asking.task.done(),
        "the request to the engine",
    )
    return asking


def _prompt(lab: Lab) -> float:
    return min(PROMPT, lab.subject.patience)


async def _released(lab: Lab, after: str) -> None:
    """Wait until no request to the engine is open."""
    async with lab.within(f"closing the request to the engine, after {after},", _prompt(lab)):
        while any(gate.open for gate in lab.gates):  # noqa: ASYNC110  # gates tell nobody
            await asyncio.sleep(0.01)


@rule(
    "cancellation.close",
    mend="Hold the engine's answer in `async with` inside the generator, and drain nothing in "
    "`finally`: closing the generator must close the request.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.incremental",
)
async def close(lab: Lab) -> None:
    """Closing an answer in the middle closes the hook and its request to the engine at once."""
    await lab.start()
    total = await lab.measured()
    lab.plan(Fault(kind=FaultKind.STALL, at=total * 3 // 4))
    async with aclosing(lab.kernel.chat(await lab.question(long=True))) as chunks:
        async with lab.within("the first chunk of an answer"):
            await anext(chunks)
        async with lab.within("closing an answer", _prompt(lab)):
            await chunks.aclose()
    await _released(lab, "the answer was closed")


@rule(
    "cancellation.cancel",
    mend="Let `asyncio.CancelledError` through: clean up in `finally`, yield nothing after it.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.incremental",
)
async def cancel(lab: Lab) -> None:
    """Cancelling the caller in mid-answer ends it as cancelled, not as a complete answer."""
    await lab.start()
    asking = await _held(lab, 0.75)
    await asking.began()
    asking.task.cancel()
    await asyncio.wait({asking.task}, timeout=_prompt(lab))
    if not asking.task.done():
        raise Broken("the caller was cancelled and goes on waiting", hook="chat")
    if not asking.task.cancelled():
        ended = asking.task.exception() or "an answer that ended"
        raise Broken(f"the caller was cancelled and got {ended!r}", hook="chat")


@rule(
    "cancellation.before-first",
    mend="Do not shield the request, and do not run it in a task that nobody cancels.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.incremental",
)
async def before_first(lab: Lab) -> None:
    """Cancelling the caller while the prompt is still read closes the request to the engine."""
    await lab.start()
    asking = await _held(lab, 0.0)
    asking.task.cancel()
    await asyncio.wait({asking.task}, timeout=_prompt(lab))
    await _released(lab, "the caller was cancelled")


@rule(
    "cancellation.next",
    mend="Release locks, semaphores and slots in `finally`.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.incremental",
)
async def next_(lab: Lab) -> None:
    """After a cancelled answer the next ones are whole."""
    await lab.start()
    for _ in range(2):
        asking = await _held(lab, 0.5)
        asking.task.cancel()
        await asyncio.wait({asking.task}, timeout=_prompt(lab))
        lab.kernel.faults.calm()
    if not any(chunk.text + chunk.reasoning for chunk in await lab.answer()):
        raise Broken("the next answer has no text", hook="chat")


@rule(
    "cancellation.others",
    mend="Cancel the one request, not whatever the worker does.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis=("streaming.incremental", "inference.parallel"),
)
async def others(lab: Lab) -> None:
    """Cancelling one answer leaves another that is in progress alone."""
    await lab.start()
    gone = await _held(lab, 0.5)
    stays = await _held(lab, 0.5)
    gone.task.cancel()
    await asyncio.wait({gone.task}, timeout=_prompt(lab))
    lab.kernel.faults.calm()
    await lab.until(stays.task.done, "the other answer")
    try:
        stays.task.result()
    except Exception as error:
        raise Broken(f"the other answer ended with {error!r}", hook="chat") from error
    if not stays.finished:
        raise Broken("the other answer ended early", hook="chat")


@rule(
    "cancellation.stop",
    mend="Do not wait for the engine in the generator's clean-up: at a stop it is gone.",
    see="docs/reference/hooks.md#stop",
    needs=(declares(Capability.CHAT),),
    basis="streaming.incremental",
)
async def stop(lab: Lab) -> None:
    """A stop ends the answers in progress: their callers get -3, and the service stops."""
    await lab.start()
    asking = await _held(lab, 0.5)
    await lab.stop()
    expect_code(await asking.error("a stop of the service"), -3, "a stop of the service")
