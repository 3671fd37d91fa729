"""Which worker holds which model, and how models get in and out.

`worker.model` says what a worker holds: the kernel sets it from the launch at each start, so a
worker that crashed comes back with what it was launched with. The primary worker, launched empty,
takes the first model; each further one gets a worker to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiplayground.errors import ServiceNotAvailable, from_dict
from aiplayground.serving.protocol import LOAD_PATH, RELEASE_PATH, UNLOAD_PATH
from aiplayground.types import ModelInfo

from .launch import worker_name
from .options import model_options
from .server.launch import worker_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiplayground.context import ServiceContext, WorkerHandle
    from aiplayground.models import LocalModel

    from .settings import Settings

SERVED = frozenset({"llm", "embedding"})
"""Types of models that a worker can load."""

RELEASE_TIMEOUT = 2.0
"""Seconds in which a worker says what it could give up."""

UNLOAD_TIMEOUT = 30.0
"""Seconds in which a worker frees a model; it has no request in progress then."""


async def load(ctx: ServiceContext, name: str) -> None:
    """Have a worker that holds the model; nothing happens if there is one."""
    if _holder(ctx, name) is not None:
        return
    model = await ctx.find_model(name)
    primary = _primary(ctx)
    if primary is None or primary.model is not None:
        await ctx.spawn(await worker_spec(ctx, model, name=worker_name(name)))
        return
    body = {"path": str(model.path), "name": model.name, "replace": False}
    await _post(ctx, primary, LOAD_PATH, body, ctx.settings.load_timeout)
    primary.model = name


async def releasable(ctx: ServiceContext, name: str) -> int:
    """Return the bytes of caches that the worker of a model has."""
    worker = _holder(ctx, name)
    if worker is None:
        return 0
    return int((await _ask(ctx, worker, RELEASE_PATH, RELEASE_TIMEOUT)).get("releasable", 0))


async def release(ctx: ServiceContext, name: str) -> int:
    """Have the worker that holds a model give up its caches; return the bytes."""
    worker = _holder(ctx, name)
    if worker is None:
        return 0
    return int((await _post(ctx, worker, RELEASE_PATH, {}, UNLOAD_TIMEOUT)).get("released", 0))


async def unload(ctx: ServiceContext, name: str) -> None:
    """Free the model; nothing happens if no worker holds it."""
    worker = _holder(ctx, name)
    if worker is None:
        return
    if worker.info.primary:
        await _post(ctx, worker, UNLOAD_PATH, {}, UNLOAD_TIMEOUT)
        worker.model = None
    else:
        await ctx.end(worker)


def base_url(ctx: ServiceContext, name: str | None) -> str:
    """Return where the model answers; without a name, where the primary worker does."""
    worker = _primary(ctx) if name is None else _holder(ctx, name)
    if worker is None:
        raise ServiceNotAvailable(
            f"{ctx.service} has no worker with {name or 'an empty slot'} now. Try again.",
            details={"service": ctx.service, "model": name},
        )
    return worker.base_url


async def list_served(ctx: ServiceContext) -> Sequence[ModelInfo]:
    """Return the models for text and for embeddings on this computer."""
    models = [model for model in await ctx.local_models() if model.type in SERVED]
    return [_info(ctx.service, model, ctx.settings) for model in models]


def _info(service: str, model: LocalModel, settings: Settings) -> ModelInfo:
    projector = model_options(settings, model.name).projector
    return ModelInfo(
        name=model.name,
        path=str(model.path),
        type="embedding" if model.type == "embedding" else "llm",
        service=service,
        size=model.size,
        format=model.format,
        architecture=model.architecture,
        quantization=model.quantization,
        parameters=model.parameters,
        context_length=model.context_length,
        vision=model.vision if projector is None else projector != "",
        chat=model.chat_template,
    )


def _primary(ctx: ServiceContext) -> WorkerHandle | None:
    return next((worker for worker in ctx.workers.values() if worker.info.primary), None)


def _holder(ctx: ServiceContext, name: str) -> WorkerHandle | None:
    return next((worker for worker in ctx.workers.values() if worker.model == name), None)


async def _post(
    ctx: ServiceContext, worker: WorkerHandle, path: str, body: dict[str, Any], timeout: float
) -> dict[str, Any]:
    return await _ask(ctx, worker, path, timeout, method="POST", json=body)


async def _ask(
    ctx: ServiceContext,
    worker: WorkerHandle,
    path: str,
    timeout: float,
    *,
    method: str = "GET",
    **more: Any,
) -> dict[str, Any]:
    import httpx  # here: models are listed before there is a worker to talk to

    headers = {"Authorization": f"Bearer {worker.token}"}
    url = worker.base_url
    try:
        answer = await ctx.http.request(
            method, url + path, headers=headers, timeout=timeout, **more
        )
        told = answer.json()
    except (httpx.TransportError, ValueError) as error:
        raise await ctx.lost(url, error) from error
    if answer.status_code != httpx.codes.OK:
        raise from_dict(told if isinstance(told, dict) else {})
    return told if isinstance(told, dict) else {}
