"""Hooks tested without a kernel: the fakes keep the kernel's rules."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from aiplayground.context import ServiceContext, WorkerHandle
from aiplayground.errors import (
    FailureClass,
    InvalidParameters,
    ModelNotFound,
    PluginError,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.models import LocalModel, ModelType
from aiplayground.specs import LaunchSpec
from aiplayground.states import Runtime
from aiplayground.testing import FakeContext
from tests.conformance.reference import Reference, Settings
from tests.fakes import question

EVENTS = b'data: {"text": "a "}\n\ndata: {"text": "b"}\n\ndata: {"finish": "stop", "tokens": 2}\n\n'


def spec(name: str = "main", **options: object) -> LaunchSpec:
    return LaunchSpec(argv=["engine"], name=name, **options)  # type: ignore[arg-type]  # any field


async def test_a_start_and_an_answer_of_the_reference_backend() -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=EVENTS)

    ctx = FakeContext(settings=Settings(), handler=handler)
    backend = Reference()
    await backend.start(ctx)
    assert ctx.spawned[0].argv[-1] == "{port}"
    assert (await backend.health(ctx)).ok
    chunks = [chunk async for chunk in backend.chat(ctx, question())]
    assert "".join(each.text for each in chunks) == "a b"
    assert chunks[-1].finish_reason == "stop"
    assert asked[0].url.port == 40001
    await ctx.aclose()


async def test_what_the_engine_refuses() -> None:
    body = {"error": {"message": "too long"}}
    ctx = FakeContext(handler=lambda _: httpx.Response(400, json=body))
    await Reference().start(ctx)
    with pytest.raises(InvalidParameters, match="too long"):
        [chunk async for chunk in Reference().chat(ctx, question())]
    await ctx.aclose()


async def test_a_worker_that_does_not_come_up() -> None:
    refuse = ServiceFailed("no memory", failure=FailureClass.OUT_OF_MEMORY)
    ctx = FakeContext(refuse=refuse)
    with pytest.raises(ServiceFailed, match="no memory"):
        await Reference().start(ctx)
    assert not ctx.workers


async def test_workers_are_kept_as_the_kernel_keeps_them() -> None:
    ctx = FakeContext()
    first = await ctx.spawn(spec(model="a"))
    await ctx.spawn(spec(primary=True))
    assert ctx.ended == ["main"], "a worker of the same name replaces the older"
    with pytest.raises(PluginError, match="primary worker already"):
        await ctx.spawn(spec("other"))
    extra = await ctx.spawn(spec("extra", primary=False, model="b"))
    assert await ctx.endpoint("b") == extra.base_url
    assert await ctx.endpoint(None) == ctx.workers["main"].base_url
    extra.state = ctx.workers["main"].state = Runtime.BACKOFF
    with pytest.raises(ServiceNotAvailable, match="no worker that answers"):
        await ctx.endpoint("b")
    await ctx.end(extra)
    await ctx.end(first)
    assert ctx.ended == ["main", "extra", "main"]
    assert not ctx.workers


async def test_the_rest_of_what_a_hook_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = LocalModel(
        name="tiny",
        path=tmp_path / "tiny.gguf",
        files=(tmp_path / "tiny.gguf",),
        size=1,
        type=ModelType.LLM,
        architecture="llama",
        parameters=1,
        quantization=None,
        context_length=None,
        chat_template=False,
        license=None,
        mtime=0.0,
    )
    ctx = FakeContext(service="mine", folder=tmp_path, models=[model])
    assert (await ctx.find_model("tiny")) is model
    with pytest.raises(ModelNotFound):
        await ctx.find_model("huge")
    assert list(await ctx.local_models()) == [model]
    assert ctx.data_dir.is_dir()
    assert ctx.cache_dir.is_dir()
    assert await ctx.run_sync(max, 1, 2) == 2
    ctx.logger.warning("hello")
    assert "hello" in caplog.text
    assert "broke" in (await ctx.lost("http://x", OSError("gone"))).message
    ctx.lost_to = ServiceFailed("it crashed", failure=FailureClass.CRASH)
    assert await ctx.lost("http://x", OSError("gone")) is ctx.lost_to
    with pytest.raises(httpx.ConnectError, match="give FakeContext a handler"):
        await ctx.http.get("http://127.0.0.1:1/")
    await ctx.aclose()


async def test_the_fakes_are_what_hooks_are_typed_for() -> None:
    ctx: ServiceContext = FakeContext()
    worker: WorkerHandle = await ctx.spawn(spec(model="m"))
    worker.model = "other"
    assert worker.info.model == "other"
    assert worker.info.state is Runtime.RUNNING
    assert worker.token


async def test_a_service_in_the_process_is_noted() -> None:
    async def close() -> None:
        """Have nothing to close."""

    ctx = FakeContext()
    with ctx.bind() as sock:
        port = sock.getsockname()[1]
    ctx.serve(f"http://127.0.0.1:{port}", close)
    assert ctx.serves == (f"http://127.0.0.1:{port}", close)
    with pytest.raises(RuntimeError, match="on=kernel"):
        _ = ctx.kernel
