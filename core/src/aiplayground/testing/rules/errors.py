"""What a caller is told when something cannot be done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, PluginError
from aiplayground.specs import Capability
from aiplayground.testing.faults import Fault, FaultKind
from aiplayground.testing.lab import Broken, expect_code

from . import declares, implements, rule, takes

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

ERRORS = "docs/reference/errors.md"
NOBODY = "no-such-model-of-the-conformance-kit"
SAID = "the prompt has 4097 tokens"


def _http(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


REFUSAL = _http(
    "400 Bad Request",
    "application/json",
    json.dumps({"error": {"message": SAID, "type": "invalid_request_error"}}).encode(),
)
CRASHED = _http("500 Internal Server Error", "text/html", b"<html>Internal Server Error</html>")
NONSENSE = _http("200 OK", "text/event-stream", b"data: {this is no JSON\n\ndata: [DONE]\n\n")


def expect_ours(error: AIPlaygroundError, after: str) -> None:
    """Break the rule if the error is one that the hook did not mean to raise."""
    if isinstance(error, PluginError):
        raise Broken(f"after {after}, the hook broke: {error.message}", hook="chat")


async def _replied(lab: Lab, reply: bytes, after: str) -> AIPlaygroundError:
    await lab.measured()
    lab.plan(Fault(kind=FaultKind.REPLY, reply=reply))
    try:
        error = await lab.fails(f"a request after {after}", lab.answer())
    finally:
        lab.kernel.faults.calm()
    expect_ours(error, after)
    return error


@rule(
    "errors.unknown-model",
    mend="Raise `ModelNotFound` (as `ctx.find_model` does) for a name that is not there.",
    see="docs/reference/hooks.md#load_model",
    needs=(implements("load_model"),),
    basis="lifecycle.start",
    shared=True,
)
async def unknown_model(lab: Lab) -> None:
    """Loading a model that is gone raises ModelNotFound (-2) or a file error (-5)."""
    route = lab.kernel.route(lab.service, "load_model")
    assert route is not None, "the rule needs the hook"
    context = lab.kernel.context(lab.service)
    error = await lab.fails("loading a model that is not there", route.call(context, NOBODY))
    if error.code not in (-2, -5):
        raise Broken(f"it raised {type(error).__name__}: {error.message}", hook="load_model")


@rule(
    "errors.parameter",
    mend="Raise `InvalidParameters`, or take the parameter out of `parameters`.",
    see=ERRORS,
    needs=(declares(Capability.CHAT), takes("response_format", "grammar")),
    basis="inference.chat",
    shared=True,
)
async def parameter(lab: Lab) -> None:
    """A declared parameter with a value that cannot be honoured answers -4, it is not ignored."""
    wrong: dict[str, Any] = {"response_format": {"type": "no-such-format"}, "grammar": "root ::= ("}
    for name in sorted(wrong.keys() & lab.facts.spec.parameters):
        doing = f"a request with {name}={wrong[name]!r}"
        error = await lab.fails(doing, lab.answer(**{name: wrong[name]}))
        expect_code(error, -4, doing)


@rule(
    "errors.refusal",
    mend="Turn the engine's 400 into `InvalidParameters` with the engine's own words.",
    see=ERRORS,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
    shared=True,
)
async def refusal(lab: Lab) -> None:
    """A request that the engine refuses (HTTP 400) answers -4, with what the engine said."""
    after = "a refusal by the engine (400)"
    error = await _replied(lab, REFUSAL, after)
    expect_code(error, -4, after)
    if SAID not in error.message:
        raise Broken(f"the engine said {SAID!r}; the caller reads {error.message!r}", hook="chat")


@rule(
    "errors.engine",
    mend="Look at the status before the body, and raise an error of `aiplayground.errors`.",
    see=ERRORS,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
    shared=True,
)
async def engine(lab: Lab) -> None:
    """An engine's failure (HTTP 500, no JSON) is an error of ours, not a defect of the hook."""
    await _replied(lab, CRASHED, "a failure of the engine (500)")


@rule(
    "errors.nonsense",
    mend="Check what the engine sent before using it, and raise `ServiceFailed` if it is wrong.",
    see=ERRORS,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
    shared=True,
)
async def nonsense(lab: Lab) -> None:
    """An answer of the engine that cannot be read is an error of ours (-3)."""
    after = "an answer of the engine that cannot be read"
    expect_code(await _replied(lab, NONSENSE, after), -3, after)
