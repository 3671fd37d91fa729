"""The checks of `aipg doctor` that need a kernel: each engine gives a real answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError
from aiplayground.specs import BackendSpec, Capability

from ._checks import Finding, Verdict, failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from aiplayground.kernel import Kernel
    from aiplayground.types import ModelInfo

GUIDE = "guide"
"""The model that ships with the program: the one that engines are checked with, if it is here."""
ONLY_GUIDE = "Only what ships with the program. Models that fit this computer: aipg models suggest"
QUESTION = "What is AI Playground?"
TOKENS = 48
"""Length of the answer at most: enough for a figure of speed, little enough to wait for."""
STOP_TIMEOUT = 30.0
"""Seconds that an engine gets to end after its check."""


async def check_models(kernel: Kernel) -> AsyncIterator[Finding]:
    """Say how many models there are, and which files are none."""
    models = await kernel.models()
    for problem in await kernel.model_problems():
        details = {"path": str(problem.path), "reason": problem.reason}
        yield Finding("models", Verdict.WARN, problem.message, details=details)
    if models:
        names = ", ".join(each.name for each in models[:8])
        more = f" and {len(models) - 8} more" if len(models) > 8 else ""
        packs = {str(path) for path in kernel.library.packs}
        advice = ONLY_GUIDE if all(each.path in packs for each in models) else ""
        yield Finding("models", Verdict.OK, f"{names}{more}", advice, {"count": len(models)})
    elif here := (await kernel.library.scan()).models:
        some = ", ".join([each.name for each in here][:8])
        what = f"no engine that is set up can run what is here: {some}"
        yield Finding("models", Verdict.WARN, what, details={"count": 0})
    else:
        advice = (
            f"Take one that fits this computer: aipg models suggest. Or put a GGUF file into "
            f"{kernel.model_paths.root}; or try the tiny model that explains this program: "
            f"pip install aiplayground-guide."
        )
        yield Finding("models", Verdict.WARN, "there is no model yet", advice)


async def check_engine(kernel: Kernel, spec: BackendSpec, timeout: float) -> Finding:
    """Start one engine, let it answer, and end it again; never raises an error of ours.

    `timeout`: seconds for all of it but the end.
    """
    name = f"engine {spec.name}"
    service = kernel.service(spec.name)
    if not service.set_up:
        why = service.error["message"] if service.error else f"{spec.title} is not installed."
        verdict = Verdict.FAIL if service.error else Verdict.WARN
        return Finding(name, verdict, why, f"Run: aipg setup {spec.name}")
    try:
        async with asyncio.timeout(timeout):
            finding = await _try(kernel, spec, name)
    except AIPlaygroundError as error:
        finding = failed(name, error)
    except TimeoutError:
        finding = Finding(
            name,
            Verdict.FAIL,
            f"it gave no answer within {timeout:.0f} s.",
            f"Its log may say why: {kernel.paths.service_log(spec.name)}. A large model on a slow "
            f"disk needs longer: aipg doctor --timeout {timeout * 4:.0f}",
        )
    left = await _end(kernel, spec.name)
    if service.attached:
        where = f"attached to {service.base_url}: {finding.message}"
        details = {**finding.details, "attached": True, "url": service.base_url}
        finding = replace(finding, message=where, details=details)
    return left or finding


async def _try(kernel: Kernel, spec: BackendSpec, name: str) -> Finding:
    if Capability.CHAT not in spec.capabilities:
        await kernel.start(spec.name)
        return Finding(name, Verdict.OK, "it starts and is healthy")
    model = choose_model(await kernel.models(), spec.name)
    if model is None:
        await kernel.start(spec.name)
        advice = "Install a model for it, such as: pip install aiplayground-guide."
        return Finding(name, Verdict.WARN, "it starts, but has no model to answer with", advice)
    return await _answer(kernel, spec, model, name)


async def _answer(kernel: Kernel, spec: BackendSpec, model: ModelInfo, name: str) -> Finding:
    from aiplayground.types import ChatRequest, Message

    wishes = {"max_tokens": TOKENS, "temperature": 0.0}
    request = ChatRequest(
        model=f"{spec.name}/{model.name}",
        messages=[Message(role="user", content=QUESTION)],
        **{key: value for key, value in wishes.items() if key in spec.parameters},
    )
    began = time.perf_counter()
    times: list[float] = []
    tokens = 0
    text = ""
    async with aclosing(kernel.chat(request)) as chunks:
        async for chunk in chunks:
            if chunk.text or chunk.reasoning:
                times.append(time.perf_counter() - began)
                text += chunk.text
            if chunk.usage is not None:
                tokens = chunk.usage.completion_tokens
            if len(times) >= TOKENS:
                break
    return _judge(name, model.name, text, times, tokens)


def _judge(name: str, model: str, text: str, times: Sequence[float], tokens: int) -> Finding:
    details: dict[str, Any] = {"model": model, "text": text}
    if not times:
        advice = "Try another model; this one may be damaged."
        return Finding(name, Verdict.FAIL, f"{model} gave an empty answer.", advice, details)
    spent = times[-1] - times[0]
    rate = (max(tokens, len(times)) - 1) / spent if spent > 0 else None
    details |= {"firstTokenSeconds": round(times[0], 3), "tokensPerSecond": rate and round(rate, 1)}
    speed = f", then {rate:.0f} tokens/s" if rate else ""
    message = f"{model} answers: first token after {times[0]:.2f} s (start included){speed}"
    return Finding(name, Verdict.OK, message, details=details)


def choose_model(models: Iterable[ModelInfo], service: str) -> ModelInfo | None:
    """Return the model to check a service with: the guide, else the smallest that can chat."""
    mine = [each for each in models if each.service == service and each.type == "llm"]
    fitting = [each for each in mine if each.chat is not False] or mine
    return min(
        fitting,
        key=lambda each: (each.name != GUIDE, each.size or 0 if each.size else float("inf")),
        default=None,
    )


async def _end(kernel: Kernel, service: str) -> Finding | None:
    """Stop a service; a finding if one of its processes outlives that."""
    import psutil

    pids = [worker.pid for worker in kernel.service(service).workers if worker.pid is not None]
    name = f"engine {service}"
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await kernel.stop(service)
    except AIPlaygroundError as error:
        return failed(name, error)
    except TimeoutError:
        return Finding(name, Verdict.FAIL, f"it did not stop within {STOP_TIMEOUT:.0f} s.")
    alive = [pid for pid in pids if psutil.pid_exists(pid)]
    if alive:
        numbers = ", ".join(map(str, alive))
        return Finding(name, Verdict.FAIL, f"its processes outlive its stop: {numbers}.")
    return None
