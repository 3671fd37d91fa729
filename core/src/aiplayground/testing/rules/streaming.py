"""How an answer arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiplayground.specs import Capability
from aiplayground.testing.faults import Fault, FaultKind
from aiplayground.testing.lab import Broken

from . import declares, rule

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

CHAT = "docs/reference/hooks.md#chat"


@rule(
    "streaming.finish",
    mend="Set `finish_reason` on the last chunk of each answer, and on no other.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
    shared=True,
)
async def finish(lab: Lab) -> None:
    """The last chunk of an answer has `finish_reason`, and none before it."""
    reasons = [chunk.finish_reason for chunk in await lab.answer()]
    if reasons[-1] is None:
        raise Broken("the last chunk has no finish_reason", hook="chat")
    if any(reason is not None for reason in reasons[:-1]):
        raise Broken(f"the chunks have the reasons {reasons}", hook="chat")


@rule(
    "streaming.usage",
    mend="Put `usage` on the last chunk only, with the engine's own counts.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.finish",
    shared=True,
)
async def usage(lab: Lab) -> None:
    """Token counts, if they are told, come once, with the last chunk, and are not negative."""
    chunks = await lab.answer()
    told = [number for number, chunk in enumerate(chunks) if chunk.usage is not None]
    if told not in ([], [len(chunks) - 1]):
        raise Broken(f"usage came with the chunks {told} of {len(chunks)}", hook="chat")
    last = chunks[-1].usage
    if last is not None and min(last.prompt_tokens, last.completion_tokens) < 0:
        raise Broken(f"the counts are {last}", hook="chat")


@rule(
    "streaming.incremental",
    mend="Yield each piece as it comes from the engine: stream the engine's answer, and read it "
    "without waiting for its end.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="streaming.finish",
    shared=True,
)
async def incremental(lab: Lab) -> None:
    """What the engine has said reaches the caller before the engine has finished."""
    total = await lab.measured()
    lab.plan(Fault(kind=FaultKind.STALL, at=total * 3 // 4))
    asking = await lab.asking()
    try:
        await lab.until(
            lambda: asking.text or asking.task.done(),
            "the first chunk, with three quarters of the answer sent by the engine,",
        )
        if asking.task.done():
            asking.task.result()
    finally:
        lab.kernel.faults.calm()
        asking.task.cancel()
        await lab.until(asking.task.done, "the end of an answer that was cancelled")
