"""Passing the answer of a worker on, byte for byte, in the turn of the loop in which it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from aiplayground.kernel import Kernel
    from aiplayground.specs import Capability
    from aiplayground.types import ModelInfo

    from .account import Account
    from .upstream import Upstream

_DONE = b"[DONE]"


class Passage(NamedTuple):
    """A request that goes to a worker as it is."""

    model: ModelInfo
    capability: Capability
    path: str
    body: bytes
    headers: dict[str, str]


class Relay:
    """Sends requests to workers that speak the OpenAI API, and their answers back."""

    def __init__(self, kernel: Kernel, upstream: Upstream) -> None:
        self._kernel = kernel
        self._upstream = upstream

    async def whole(self, passage: Passage, place: AbstractAsyncContextManager[None]) -> bytes:
        """Return the body of a success. It is read to its end first: none is ever cut short."""
        async with (
            place,
            self._kernel.lease(passage.model, passage.capability) as lease,
            self._upstream.post(
                lease, passage.path, passage.body, passage.headers, whole=True
            ) as answer,
        ):
            return await answer.read()

    async def events(
        self, passage: Passage, place: AbstractAsyncContextManager[None], account: Account
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an event stream as they are read. Raises if it breaks off."""
        async with (
            place,
            self._kernel.lease(passage.model, passage.capability) as lease,
            self._upstream.post(
                lease, passage.path, passage.body, passage.headers, whole=False
            ) as answer,
        ):
            try:
                while data := await answer.read():
                    account.saw(data)
                    yield data
            except BaseException:
                account.broke_off()  # the client went away, or the worker
                raise
            if answer.delimited or _DONE in account.tail():
                account.ended()
            else:
                # The end of such an answer is the end of its connection, whatever ended that.
                account.broke_off()
                raise await lease.lost(ConnectionResetError("the answer broke off"))
