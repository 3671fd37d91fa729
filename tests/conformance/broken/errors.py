"""Breaking the rules of what callers are told."""

from __future__ import annotations

import json
from typing import Any

from aiplayground.context import ServiceContext
from aiplayground.hookspecs import hookimpl
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
)
from tests.conformance.broken.variants import breaks
from tests.conformance.reference import Reference


@breaks("errors.unknown-model", r"hook 'load_model': it raised PluginError: .*KeyError")
class Indexes(Reference):
    @hookimpl
    async def load_model(self, ctx: ServiceContext, model: str) -> None:
        _ = {"tiny": 1, "small": 2}[model]


@breaks("errors.parameter", r"a request with response_format=.* raised nothing")
class IgnoresFormat(Reference):
    def body(self, request: ChatRequest) -> dict[str, Any]:
        body = super().body(request)
        body.pop("response_format", None)
        return body


@breaks("errors.refusal", r"after a refusal by the engine \(400\), the caller .*where -4 is due")
class OneError(Reference):
    def refused(self, status: int, body: bytes) -> None:
        if b"no format" in body:
            super().refused(status, body)
        raise self.failed("the engine said no")


@breaks("errors.engine", r"hook 'chat': after a failure of the engine .*JSONDecodeError")
class ExpectsJson(Reference):
    def refused(self, status: int, body: bytes) -> None:
        json.loads(body)
        super().refused(status, body)


@breaks("errors.nonsense", r"hook 'chat': after an answer .*cannot be read.*JSONDecodeError")
class Trusts(Reference):
    def read(self, line: str) -> ChatChunk:
        json.loads(line.removeprefix("data: "))
        return super().read(line)
