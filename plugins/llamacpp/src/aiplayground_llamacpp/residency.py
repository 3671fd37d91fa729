"""Which worker holds which model, and how models get in and out.

Nothing is remembered here: a worker that has its own model is launched with it, and the primary
worker, which may have been restarted empty meanwhile, is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from aiplayground.errors import AIPlaygroundError, FailureClass, ServiceFailed, from_dict
from aiplayground.serving.protocol import HEALTH_PATH, LOAD_PATH, OCCUPIED, UNLOAD_PATH
from aiplayground.types import ModelInfo

from .launch import launch_spec, worker_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiplayground.context import ServiceContext, WorkerHandle
    from aiplayground.models import LocalModel

ASK_TIMEOUT = 10.0
"""Seconds in which a worker says what it holds; it does so without its engine."""


async def load(ctx: ServiceContext, name: str) -> None:
    """Have a worker that holds the model; nothing happens if there is one."""
    if await holder(ctx, name) is not None:
        return
    model = await ctx.find_model(name)
    primary = _primary(ctx)
    if primary is None or not await _load_into(ctx, primary, model):
        await ctx.spawn(launch_spec(ctx.settings, model, name=worker_name(model.name)))


async def unload(ctx: ServiceContext, name: str) -> None:
    """Free the model; nothing happens if no worker holds it."""
    worker = await holder(ctx, name)
    if worker is None:
        return
    if worker.info.primary:
        await _post(ctx, worker, UNLOAD_PATH, {}, ASK_TIMEOUT)
    else:
        await ctx.end(worker)


async def base_url(ctx: ServiceContext, name: str | None) -> str:
    """Return where the model answers.

    A primary worker that crashed comes back empty: it is given the model again.
    """
    if name is None:
        return _require(_primary(ctx)).base_url
    worker = await holder(ctx, name)
    if worker is None:
        await load(ctx, name)
        worker = await holder(ctx, name)
    return _require(worker).base_url


async def holder(ctx: ServiceContext, name: str) -> WorkerHandle | None:
    """Return the worker that holds the model."""
    for worker in ctx.workers.values():
        if not worker.info.primary and worker.model == name:
            return worker
    primary = _primary(ctx)
    if primary is not None and await _held(ctx, primary) == name:
        return primary
    return None


async def list_served(ctx: ServiceContext) -> Sequence[ModelInfo]:
    """Return the language models on this computer, and whether each is loaded."""
    models = [model for model in await ctx.local_models() if model.type == "llm"]
    primary = _primary(ctx)
    held = {worker.model for worker in ctx.workers.values() if not worker.info.primary}
    if primary is not None:
        held.add(await _held(ctx, primary))
    return [_info(ctx.service, model, loaded=model.name in held) for model in models]


def _info(service: str, model: LocalModel, *, loaded: bool) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        path=str(model.path),
        type="llm",
        service=service,
        size=model.size,
        loaded=loaded,
        format=model.format,
        architecture=model.architecture,
        quantization=model.quantization,
        parameters=model.parameters,
        context_length=model.context_length,
        vision=model.vision,
        chat=model.chat_template,
    )


def _primary(ctx: ServiceContext) -> WorkerHandle | None:
    return next((worker for worker in ctx.workers.values() if worker.info.primary), None)


async def _held(ctx: ServiceContext, worker: WorkerHandle) -> str | None:
    """Ask a worker which model it holds; one that does not answer holds none."""
    try:
        answer = await ctx.http.get(worker.base_url + HEALTH_PATH, timeout=ASK_TIMEOUT)
        model = answer.json().get("model")
    except (httpx.HTTPError, ValueError) as error:
        ctx.logger.warning("worker %s does not say what it holds: %s", worker.name, error)
        return None
    return model if isinstance(model, str) else None


async def _load_into(ctx: ServiceContext, worker: WorkerHandle, model: LocalModel) -> bool:
    """Load into a worker; return False if it holds another model."""
    body = {"path": str(model.path), "name": model.name, "replace": False}
    try:
        await _post(ctx, worker, LOAD_PATH, body, ctx.settings.load_timeout)
    except AIPlaygroundError as error:
        if error.details.get("reason") == OCCUPIED:
            return False
        raise
    return True


async def _post(
    ctx: ServiceContext, worker: WorkerHandle, path: str, body: dict[str, Any], timeout: float
) -> None:
    headers = {"Authorization": f"Bearer {worker.token}"}
    try:
        answer = await ctx.http.post(
            worker.base_url + path, json=body, headers=headers, timeout=timeout
        )
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _lost(ctx, worker, error) from error
    if answer.status_code != 200:
        raise from_dict(told if isinstance(told, dict) else {})


def _lost(ctx: ServiceContext, worker: WorkerHandle, error: Exception) -> ServiceFailed:
    timed_out = isinstance(error, httpx.TimeoutException)
    what = "did not finish in time" if timed_out else "went away"
    return ServiceFailed(
        f"{ctx.service}: worker {worker.name} {what} while it changed its model "
        f"({type(error).__name__}). Try again; its log says more.",
        failure=FailureClass.TIMEOUT if timed_out else FailureClass.CRASH,
        details={"worker": worker.name},
    )


def _require(worker: WorkerHandle | None) -> WorkerHandle:
    if worker is None:
        raise ServiceFailed(
            "llamacpp-backend has no worker for this model. Start the service and try again.",
            failure=FailureClass.EXIT,
        )
    return worker
