"""The door of the plugin, and which worker gets which model."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    FileOperationError,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.models import LocalModel, ModelType
from aiplayground.specs import Capability, Device, LaunchSpec
from aiplayground_llamacpp import plugin
from aiplayground_llamacpp.launch import launch_spec
from aiplayground_llamacpp.server.launch import device_names
from aiplayground_llamacpp.settings import Settings

HEAVY = ("httpx", "aiohttp", "uvicorn", "starlette", "numpy", "rich", "pydantic", "llama_cpp")


def local(name: str, kind: ModelType = ModelType.LLM) -> LocalModel:
    path = Path(f"/models/{name}.gguf")
    return LocalModel(
        name=name, path=path, files=(path,), size=5, type=kind, architecture="llama",
        parameters=9, quantization="Q8_0", context_length=512, chat_template=True, license=None,
        mtime=0.0,
    )  # fmt: skip


@dataclass
class Info:
    primary: bool


@dataclass
class FakeWorker:
    """A worker that keeps to the protocol."""

    name: str
    model: str | None
    primary: bool
    token: str = "secret"
    holds: str | None = None
    answer: Callable[[httpx.Request], httpx.Response] | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.name.replace(':', '-')}"

    @property
    def info(self) -> Info:
        return Info(self.primary)

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.answer is not None:
            return self.answer(request)
        if request.url.path == "/health":
            return httpx.Response(200, json={"status": "ok", "model": self.holds})
        assert request.headers["authorization"] == "Bearer secret"
        body = json.loads(request.content)
        if request.url.path == "/models/unload":
            self.holds = None
        elif self.holds is not None and not body["replace"]:
            details = {"reason": "occupied"}
            return httpx.Response(503, json={"code": -3, "message": "x", "details": details})
        else:
            self.holds = body["name"]
        return httpx.Response(200, json={"model": self.holds})


@dataclass
class FakeContext:
    """What the kernel gives to hooks, with workers that are no processes."""

    model: str | None = None
    service: str = "llamacpp-backend"
    settings: Settings = field(default_factory=Settings)
    selected_devices: tuple[Device, ...] = ()
    workers: dict[str, FakeWorker] = field(default_factory=dict)
    specs: list[LaunchSpec] = field(default_factory=list)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("test"))

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        url = f"http://{request.url.host}"
        return next(w for w in self.workers.values() if w.base_url == url).handle(request)

    async def spawn(self, spec: LaunchSpec) -> FakeWorker:
        self.specs.append(spec)
        worker = FakeWorker(spec.name, spec.model, spec.primary, holds=spec.model)
        self.workers[spec.name] = worker
        return worker

    async def end(self, worker: FakeWorker) -> None:
        del self.workers[worker.name]

    async def run_sync(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    async def lost(self, base_url: str, error: Exception) -> AIPlaygroundError:
        return ServiceFailed(f"{base_url} is gone", failure=FailureClass.CRASH)

    async def find_model(self, name: str) -> LocalModel:
        return local(name)

    async def local_models(self) -> list[LocalModel]:
        return [local("a"), local("b"), local("e", ModelType.EMBEDDING)]


@pytest.fixture
async def ctx() -> Any:
    context: Any = FakeContext()  # only what this backend uses of a ServiceContext
    await plugin.start(context)
    yield context
    await context.http.aclose()


def test_the_door_is_light() -> None:
    code = (
        "import sys; import aiplayground_llamacpp.plugin as p; p.backend(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_who_it_is() -> None:
    spec = plugin.backend()
    assert (spec.name, spec.preferred_port, spec.api) == ("llamacpp-backend", 8080, "openai")
    assert spec.capabilities == {
        Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING, Capability.RERANK,
        Capability.TOOLS, Capability.VISION,
    }  # fmt: skip
    assert spec.parameters >= {"temperature", "seed", "stop", "max_tokens"}


def test_how_a_worker_is_launched() -> None:
    spec = launch_spec(Settings(), None, name="main")
    assert spec.argv == [sys.executable, "-m", "aiplayground_llamacpp.worker", "--fd", "{fd}"]
    assert (spec.primary, spec.ours, spec.model, spec.start_timeout) == (True, True, None, None)
    spec = launch_spec(Settings(threads=3), local("a"), name="model:a")
    assert spec.argv[5:] == [
        "--model", "/models/a.gguf", "--name", "a", "--settings", '{"threads":3}',
    ]  # fmt: skip
    assert (spec.primary, spec.model, spec.start_timeout) == (False, "a", 600)


async def test_a_start_takes_the_model_that_is_wanted_first() -> None:
    context: Any = FakeContext(model="a")
    await plugin.start(context)
    assert context.specs[0].model == "a"
    assert await plugin.endpoint(context, "a") == "http://main"
    await context.http.aclose()


async def test_the_first_model_goes_into_the_empty_worker_and_the_next_beside_it(ctx: Any) -> None:
    await plugin.load_model(ctx, "a")
    await plugin.load_model(ctx, "a")
    await plugin.load_model(ctx, "b")
    assert list(ctx.workers) == ["main", "model:b"]
    assert await plugin.endpoint(ctx, "a") == "http://main"
    assert await plugin.endpoint(ctx, "b") == "http://model-b"
    assert await plugin.endpoint(ctx, None) == "http://main"
    listed = await plugin.list_models(ctx)
    assert [(model.name, model.type) for model in listed] == [
        ("a", "llm"), ("b", "llm"), ("e", "embedding"),
    ]  # fmt: skip
    assert listed[0].service == "llamacpp-backend"
    assert [worker.model for worker in ctx.workers.values()] == ["a", "b"]


async def test_which_models_are_listed_as_able_to_see(ctx: Any) -> None:
    assert [model.vision for model in await plugin.list_models(ctx)] == [False] * 3
    models = {"a": {"projector": "mmproj.gguf"}, "b": {"projector": ""}, "e": {}}
    ctx.settings = Settings.model_validate({"models": models})
    assert [model.vision for model in await plugin.list_models(ctx)] == [True, False, False]


async def test_unloading_empties_the_first_worker_and_ends_the_others(ctx: Any) -> None:
    await plugin.load_model(ctx, "a")
    await plugin.load_model(ctx, "b")
    await plugin.unload_model(ctx, "a")
    await plugin.unload_model(ctx, "b")
    await plugin.unload_model(ctx, "never there")
    assert list(ctx.workers) == ["main"]
    assert (ctx.workers["main"].model, ctx.workers["main"].holds) == (None, None)


async def test_a_worker_that_came_back_empty_gets_its_model_again(ctx: Any) -> None:
    await plugin.load_model(ctx, "a")
    ctx.workers["main"].holds = ctx.workers["main"].model = None  # as the kernel sets it
    with pytest.raises(ServiceNotAvailable):
        await plugin.endpoint(ctx, "a")
    await plugin.load_model(ctx, "a")
    assert ctx.workers["main"].holds == "a"


async def test_what_the_worker_says_about_a_load_is_passed_on(ctx: Any) -> None:
    def damaged(request: httpx.Request) -> httpx.Response:
        body = {"code": -5, "message": "a.gguf is damaged.", "details": {"path": "a.gguf"}}
        return httpx.Response(500, json=body if request.method == "POST" else {"model": None})

    ctx.workers["main"].answer = damaged
    with pytest.raises(Exception, match=r"a\.gguf is damaged\.") as caught:
        await plugin.load_model(ctx, "a")
    assert isinstance(caught.value, FileOperationError)


@pytest.mark.parametrize("error", [httpx.ReadTimeout("x"), httpx.ReadError("x")])
async def test_a_worker_that_is_lost_during_a_load(ctx: Any, error: httpx.HTTPError) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise error

    ctx.workers["main"].answer = lost
    with pytest.raises(ServiceFailed, match="http://main is gone"):
        await plugin.load_model(ctx, "a")
    assert ctx.workers["main"].model is None


async def test_without_a_worker_there_is_no_endpoint() -> None:
    context: Any = FakeContext()
    with pytest.raises(ServiceNotAvailable, match="no worker"):
        await plugin.endpoint(context, None)
    await context.http.aclose()


async def test_the_version_is_that_of_the_engine(ctx: Any) -> None:
    assert await plugin.installed_version(ctx) == version("llama-cpp-python")


CPU = Device(id="CPU", name="A processor", kind="CPU")
CARD = tuple(Device(id=name, name="A card", kind="GPU") for name in ("CUDA0", "Vulkan0"))


@pytest.mark.parametrize(
    ("selected", "known", "names"),
    [
        ((CPU,), set(), ("none",)),
        (CARD, {"CUDA0", "Vulkan0"}, ("CUDA0",)),
        (CARD, {"Vulkan0", "Vulkan1"}, ("Vulkan0",)),
        (CARD, {"SYCL0"}, ()),
    ],
)
def test_a_selected_device_is_named_as_the_engine_does(
    selected: tuple[Device, ...], known: set[str], names: tuple[str, ...]
) -> None:
    assert device_names(selected, known) == names


async def test_a_start_uses_the_selected_device_unless_the_settings_name_one(ctx: Any) -> None:
    ctx.selected_devices = (CPU,)
    await plugin.start(ctx)
    assert '"devices":["none"]' in ctx.specs[-1].argv[-1]
    ctx.settings = Settings(devices=("CUDA1",))
    await plugin.start(ctx)
    assert '"devices":["CUDA1"]' in ctx.specs[-1].argv[-1]


async def test_a_selected_device_that_the_engine_lacks_is_logged(
    ctx: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ctx.selected_devices = (Device(id="CUDA99", name="Another card", kind="GPU"),)
    await plugin.start(ctx)
    assert not any("devices" in part for part in ctx.specs[-1].argv)
    assert "Another card" in caplog.text
