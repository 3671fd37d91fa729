"""From a backend's chunks to the events and bodies of the OpenAI API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiplayground.serving.replies import Answers, Envelope, Totals
from aiplayground.types import ChatChunk, GenerateEvent

from .delivery import event

if TYPE_CHECKING:
    from .account import Account

DONE = b"data: [DONE]\n\n"


async def counted(
    chunks: AsyncGenerator[ChatChunk, None], account: Account
) -> AsyncGenerator[ChatChunk, None]:
    """Pass chunks on, counting."""
    totals, pieces, ended = Totals(), 0, False
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                account.first()
                totals.add(chunk)
                pieces += bool(chunk.text or chunk.reasoning or chunk.tool_calls)
                yield chunk
        ended = True
    finally:
        if pieces and not ended and totals.usage is None:
            account.cut(pieces)
        else:
            account.usage(totals.usage)


async def events(
    chunks: AsyncGenerator[ChatChunk, None], envelope: Envelope, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the server-sent events of a streamed answer."""
    totals, lengths = Totals(), dict[int, int]()
    async with aclosing(chunks):
        async for chunk in chunks:
            totals.add(chunk)
            length = lengths.get(chunk.index)
            opening = envelope.opening(chunk.index) if length is None else None
            lengths[chunk.index] = (length or 0) + len(chunk.text)
            piece = event(envelope.piece(chunk, length or 0))
            yield piece if opening is None else event(opening) + piece
    usage = totals.usage
    yield (event(envelope.closing(usage)) if include_usage and usage else b"") + DONE


async def collected(chunks: AsyncGenerator[ChatChunk, None]) -> Answers:
    """Return the whole answers."""
    answers = Answers()
    async with aclosing(chunks):
        async for chunk in chunks:
            answers.add(chunk)
    return answers


async def as_chunks(steps: AsyncGenerator[GenerateEvent, None]) -> AsyncGenerator[ChatChunk, None]:
    """Yield the steps of a completion as chunks."""
    async with aclosing(steps):
        async for step in steps:
            yield ChatChunk(
                index=step.index,
                text=step.text,
                finish_reason=step.finish_reason,
                usage=step.usage,
                logprobs=step.logprobs,
            )
