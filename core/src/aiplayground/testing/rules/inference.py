"""What it answers."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, InvalidParameters, PluginError
from aiplayground.specs import Capability
from aiplayground.testing.lab import Broken, NotApplicable
from aiplayground.types import ChatChunk, EmbedRequest, GenerateEvent
from aiplayground.validation import parse_generate

from . import declares, implements, rule, takes

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

MADE = (Capability.IMAGE, Capability.VIDEO, Capability.SPEECH, Capability.RERANK)
CALLERS = 4
FEW = 3
"""Tokens that an answer is limited to."""

CHAT = "docs/reference/hooks.md#chat"
NEAR = 1e-3
"""How far the same text's vectors may lie apart, relative to their length."""


@rule(
    "inference.models",
    mend="Return a list of `ModelInfo`, each name once, without launching anything.",
    see="docs/reference/hooks.md#list_models",
    basis="lifecycle.start",
)
async def models(lab: Lab) -> None:
    """It lists its models, running or not, without starting the engine; each name is there once."""
    launches = len(lab.kernel.faults.launches)
    async with lab.within("listing the models of a stopped service"):
        await lab.kernel.models()
    if len(lab.kernel.faults.launches) != launches:
        raise Broken("listing the models launched a worker", hook="list_models")
    await lab.start()
    async with lab.within("listing the models"):
        # Past the kernel's own list, which leaves a hook that fails out.
        found = await _listed(lab)
    names = [each.name for each in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Broken(f"it lists {', '.join(twice)} more than once", hook="list_models")
    wanted = lab.subject.model
    if not names or (wanted is not None and wanted not in names):
        raise Broken(f"it lists {names}, without {wanted or 'any model'}", hook="list_models")


async def _listed(lab: Lab) -> list[Any]:
    route = lab.kernel.route(lab.service, "list_models")
    if route is None:
        raise Broken("it has no hook 'list_models', so no model can be asked", hook="list_models")
    return list(await route.call(lab.kernel.context(lab.service)))


@rule(
    "inference.chat",
    mend="Yield `ChatChunk`s with text, the last one with `finish_reason`.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.models",
    shared=True,
)
async def chat(lab: Lab) -> None:
    """A conversation is answered with text."""
    chunks = await lab.answer()
    _expect_kind(chunks, ChatChunk, "chat")
    if not "".join(each.text + each.reasoning for each in chunks):
        raise Broken(f"the answer has no text: {len(chunks)} chunks", hook="chat")


def _expect_kind(items: list[Any], kind: type, hook: str) -> None:
    for item in items:
        if not isinstance(item, kind):
            raise Broken(f"it yielded {type(item).__name__}, no {kind.__name__}", hook=hook)


@rule(
    "inference.max-tokens",
    mend="Pass `max_tokens` on to the engine, or take it out of `parameters`.",
    see=CHAT,
    needs=(declares(Capability.CHAT), takes("max_tokens")),
    basis="inference.chat",
    shared=True,
)
async def max_tokens(lab: Lab) -> None:
    """A declared `max_tokens` is honoured: the answer ends with `length`."""
    chunks = await lab.answer(long=True, max_tokens=FEW)
    reasons = [each.finish_reason for each in chunks if each.finish_reason is not None]
    used = max((each.usage.completion_tokens for each in chunks if each.usage), default=0)
    if used > FEW:
        raise Broken(f"it used {used} tokens where {FEW} were allowed", hook="chat")
    if reasons != ["length"] and len([each for each in chunks if each.text]) > FEW:
        raise Broken(f"the answer went on, and ended with {reasons}", hook="chat")


@rule(
    "inference.parallel",
    mend="Keep what belongs to one answer in the generator, and nothing in globals.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
    shared=True,
)
async def parallel(lab: Lab) -> None:
    """Simultaneous conversations each get a whole answer."""
    answers = await asyncio.gather(*(lab.answer() for _ in range(CALLERS)), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise Broken(f"one of {CALLERS} at once failed: {answer}", hook="chat") from answer
        if not any(each.text + each.reasoning for each in answer):
            raise Broken(f"one of {CALLERS} at once got an answer without text", hook="chat")


@rule(
    "inference.on-demand",
    mend="Let `start` work with `ctx.model` given, and `load_model` be called while it runs.",
    see="docs/reference/hooks.md#start",
    needs=(declares(Capability.CHAT),),
    basis="inference.parallel",
)
async def on_demand(lab: Lab) -> None:
    """First requests start a stopped service, once for all of them, and are answered."""
    async with lab.within("listing the models of a stopped service"):
        listed = [each.name for each in await lab.kernel.models()]
    if (lab.subject.model or "") not in listed and not listed:
        raise NotApplicable("it lists no models while it is stopped")
    answers = await asyncio.gather(*(lab.answer() for _ in range(CALLERS)), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise Broken(f"a first request failed: {answer}", hook="start") from answer
    launches = lab.kernel.faults.launches
    if len(launches) != len(set(launches)):
        raise Broken(f"{CALLERS} first requests launched {launches}", hook="load_model")


@rule(
    "inference.reload",
    mend="Let `load_model` bring back what `unload_model` freed.",
    see="docs/reference/hooks.md#unload_model",
    needs=(declares(Capability.CHAT), implements("unload_model")),
    basis="inference.chat",
    shared=True,
)
async def reload(lab: Lab) -> None:
    """A model that was unloaded is loaded again by the next request."""
    await lab.answer()
    async with lab.within("unloading a model"):
        await lab.kernel.unload(lab.service, await lab.model())
    if not await lab.answer():
        raise Broken("after an unload it answers nothing", hook="load_model")


@rule(
    "inference.completion",
    mend="Yield `GenerateEvent(kind='text', ...)`, the last one with `finish_reason`.",
    see="docs/reference/hooks.md#generate",
    needs=(declares(Capability.COMPLETION),),
    basis=("inference.models", "declaration.capabilities"),
    shared=True,
)
async def completion(lab: Lab) -> None:
    """A text is continued, and the last event says why it ended."""
    known = lab.facts.spec.parameters
    given = {"max_tokens": 8} if "max_tokens" in known else {}
    events = await _generated(lab, {"kind": "completion", "prompt": "Once upon a time", **given})
    if not any(each.text for each in events):
        raise Broken("the continuation has no text", hook="generate")
    if events[-1].finish_reason is None:
        raise Broken("the last event has no finish_reason", hook="generate")


async def _generated(lab: Lab, body: dict[str, Any]) -> list[GenerateEvent]:
    request = parse_generate({"model": await lab.model(), **body})
    async with lab.within(f"making a {body['kind']}"), aclosing(lab.kernel.generate(request)) as it:
        events = [event async for event in it]
    _expect_kind(events, GenerateEvent, "generate")
    if not events:
        raise Broken(f"a {body['kind']} ended without an event", hook="generate")
    return events


@rule(
    "inference.generate",
    mend="Yield a `GenerateEvent` of the kind that was asked for, and progress from 0 to 100.",
    see="docs/reference/hooks.md#generate",
    needs=(declares(*MADE),),
    basis=("inference.models", "declaration.capabilities"),
    shared=True,
)
async def generate(lab: Lab) -> None:
    """Each declared kind (image, video, speech, rerank) ends with a result of that kind."""
    for capability in sorted(lab.facts.spec.capabilities & set(MADE)):
        try:
            events = await _generated(lab, {"kind": capability.value, **_SMALL[capability]})
        except InvalidParameters as error:
            if "generate" in lab.facts.hooks:
                raise
            # The worker's own refusal, through the kernel's hook: no fault of the backend.
            raise NotApplicable(f"no model for {capability} is here ({error.message})") from error
        wanted = {"speech": "audio", "rerank": "result"}.get(capability, capability.value)
        if not any(each.kind == wanted for each in events):
            kinds = sorted({each.kind for each in events})
            raise Broken(f"a {capability} gave only {kinds}, no '{wanted}'", hook="generate")
        for event in events:
            if event.progress is not None and not 0 <= event.progress <= 100:
                raise Broken(f"it told {event.progress} % of a {capability}", hook="generate")


_SMALL: dict[Capability, dict[str, Any]] = {
    Capability.IMAGE: {"prompt": "a red square"},
    Capability.VIDEO: {"prompt": "a red square"},
    Capability.SPEECH: {"text": "Hello"},
    Capability.RERANK: {"query": "cat", "documents": ["a cat", "a bridge"]},
}


@rule(
    "inference.embedding",
    mend="Return one vector for each input, in order, all of one length.",
    see="docs/reference/hooks.md#embed",
    needs=(declares(Capability.EMBEDDING),),
    basis=("inference.models", "declaration.capabilities"),
    shared=True,
)
async def embedding(lab: Lab) -> None:
    """Texts become finite vectors of one length, in order, the same text the same vector."""
    inputs = ["a cat", "a bridge", "a cat"]
    model, meant = await _embedder(lab)
    try:
        async with lab.within("embedding"):
            vectors = (await lab.kernel.embed(EmbedRequest(model=model, input=inputs))).vectors
    except PluginError:
        raise
    except AIPlaygroundError as error:
        if meant:
            raise
        raise NotApplicable(f"it lists no model for embeddings ({error.message})") from error
    if len(vectors) != len(inputs):
        raise Broken(f"{len(inputs)} texts gave {len(vectors)} vectors", hook="embed")
    lengths = {len(each) for each in vectors}
    if len(lengths) != 1 or 0 in lengths:
        raise Broken(f"the vectors have the lengths {sorted(lengths)}", hook="embed")
    if not all(math.isfinite(number) for vector in vectors for number in vector):
        raise Broken("a vector has a number that is not finite", hook="embed")
    size = math.hypot(*vectors[0]) or 1.0
    if math.dist(vectors[0], vectors[2]) > NEAR * size:
        raise Broken("the same text got two different vectors: are they in order?", hook="embed")


async def _embedder(lab: Lab) -> tuple[str, bool]:
    """Return the model to ask, and whether it is one that is meant for embeddings."""
    async with lab.within("listing the models"):
        models = await lab.kernel.models()
    meant = next((each.name for each in models if each.type == "embedding"), None)
    return (meant, True) if meant is not None else (await lab.model(), False)
