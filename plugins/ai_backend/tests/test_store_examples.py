"""What the API reference says of stores, in Python: in the kernel's process, and from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from tests.fakes import PATIENCE, Fake, nothing_leaks

from aiplayground import Kernel, hookimpl
from aiplayground.api import ModelDownloadInfo
from aiplayground.client import AsyncClient
from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.events import ModelDownloadProgress
from aiplayground.states import BackendStatus
from aiplayground.stores import StoreView
from aiplayground.stores.backend_services import BackendServicesState
from aiplayground.stores.models import ModelsState
from aiplayground.stores.views import BackendServices, Models, OpenAiCompatibleChat, Presets

from .serving import Engine, gateway

S = TypeVar("S")
DOWNLOAD = ModelDownloadInfo(repo="o/m", filename="m.gguf", destination="llm/m", type="llm")


@dataclass
class Place:
    """Where a user interface is: in the kernel's process, or with a client of its own."""

    kernel: Kernel
    client: AsyncClient | None

    async def store(self, name: str) -> Any:
        return await (self.client.store(name) if self.client else self.kernel.store(name))

    async def backend_services(self) -> BackendServices:
        return cast(BackendServices, await self.store("backendServices"))

    async def presets(self) -> Presets:
        return cast(Presets, await self.store("presets"))

    async def models(self) -> Models:
        return cast(Models, await self.store("models"))


@pytest.fixture(params=["in process", "client"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        plugins = (Engine("llamacpp-backend"), Engine("comfyui-backend"))
        kernel, _ = await stack.enter_async_context(gateway(tmp_path, *plugins))
        client = None
        if request.param == "client":
            client = await stack.enter_async_context(AsyncClient(home=tmp_path))
        yield Place(kernel, client)


async def until(store: StoreView[Any], wanted: Any) -> Any:
    """Return the first state that is as wanted."""
    async with asyncio.timeout(PATIENCE), store.subscribe() as changes:
        async for change in changes:
            if wanted(change.state):
                return change.state
    raise AssertionError("the store ended")


def test_the_stores_of_the_kernel_are_what_the_views_say() -> None:
    """Checked by mypy: what is typed here would not pass otherwise."""

    async def typed(
        kernel: Kernel,
    ) -> tuple[BackendServices, Models, Presets, OpenAiCompatibleChat]:
        return (
            await kernel.store("backendServices"),
            await kernel.store("models"),
            await kernel.store("presets"),
            await kernel.store("openAiCompatibleChat"),
        )

    assert asyncio.iscoroutinefunction(typed)


async def test_backend_services(place: Place) -> None:
    backend_services = await place.backend_services()
    assert backend_services.state.is_initialized
    assert await backend_services.start_service("ai-backend") is BackendStatus.RUNNING
    names = [each.name for each in backend_services.state.current_service_info]
    assert names == ["llamacpp-backend", "comfyui-backend", "ai-backend"]
    assert backend_services.state.current_service_info[2].current_status is BackendStatus.RUNNING

    assert await backend_services.start_service("llamacpp-backend") is BackendStatus.RUNNING
    assert await backend_services.stop_service("llamacpp-backend") is BackendStatus.STOPPED
    stopped = backend_services.state.current_service_info[0]
    assert stopped.current_status is BackendStatus.STOPPED

    await backend_services.set_up_service("comfyui-backend")

    def verified(state: BackendServicesState) -> bool:
        step = state.setup_progress.get("comfyui-backend")
        return step is not None and (step.stage, step.progress) == ("verify", 100)

    await until(backend_services, verified)
    await backend_services.refresh_service_info()
    with pytest.raises(ServiceNotAvailable, match="Did you mean 'llamacpp-backend'"):
        await backend_services.start_service("lamacpp-backend")


async def test_backend_services_follow_what_others_do(place: Place) -> None:
    backend_services = await place.backend_services()
    async with backend_services.subscribe("current_service_info") as changes:
        await anext(changes)
        await place.kernel.start("llamacpp-backend")
        running: BackendStatus | None = None
        async with asyncio.timeout(PATIENCE):
            while running is not BackendStatus.RUNNING:
                running = (await anext(changes)).state.current_service_info[0].current_status


async def test_presets(place: Place) -> None:
    presets = await place.presets()
    names = [each.name for each in presets.state.presets]
    assert presets.state.active_preset_index == 0
    await presets.set_active_preset(names.index("Summarise"))
    assert presets.state.active_preset_index == names.index("Summarise")
    active = presets.state.active_preset
    assert active is not None
    assert (active.name, active.type, active.backend) == ("Summarise", "text", "ai-backend")
    await presets.set_active_variant("one")
    varied = presets.state.active_preset_with_variant
    assert varied is not None
    assert "in one sentence" in varied.settings["systemPrompt"].default
    with pytest.raises(InvalidParameters, match="'Temperature' must be 0 to 2, not 3"):
        await presets.set_setting("temperature", 3)
    with pytest.raises(InvalidParameters, match="numbered from 0"):
        await presets.set_active_preset(len(names))
    assert presets.state.active_preset == active

    folder = place.kernel.paths.presets
    folder.mkdir(parents=True)
    mine = {"name": "Mine", "type": "image", "backend": "comfyui-backend"}
    (folder / "mine.json").write_text(json.dumps(mine))
    (folder / "wrong.json").write_text(json.dumps({**mine, "type": "song"}, indent=1))
    await presets.load_presets()
    assert [each.name for each in presets.state.presets] == [*names, "Mine"]
    [problem] = presets.state.problems
    assert (Path(problem.file).name, problem.line) == ("wrong.json", 3)
    assert presets.state.active_preset == active


async def test_models(place: Place) -> None:
    models = await place.models()
    listed = {each.name for each in models.state.llm_models}
    assert listed == {"m"}
    assert (models.state.checkpoint_models, models.state.lora_models) == ((), ())
    await models.refresh_models()
    await place.kernel.ensure_ready("llamacpp-backend", "m")
    state: ModelsState = await until(models, lambda state: state.loaded_models == {"m"})
    assert [each.loaded for each in state.llm_models if each.backend == "llamacpp-backend"]
    await place.kernel.stop("llamacpp-backend")
    await until(models, lambda state: not state.loaded_models)


async def test_downloads(place: Place) -> None:
    models = await place.models()
    publish = place.kernel._bus.publish
    publish(ModelDownloadProgress(filename="m.gguf", progress=45, speed="12.5 MB/s"))
    state = await until(models, lambda state: state.downloads)
    assert state.downloads["m.gguf"].progress == 45
    publish(ModelDownloadProgress(filename="m.gguf", progress=100))
    await until(models, lambda state: not state.downloads)


async def test_a_download_without_its_plugin(place: Place) -> None:
    models = await place.models()
    with pytest.raises(ServiceNotAvailable, match="aiplayground-models") as refused:
        await models.download_model(DOWNLOAD)
    assert refused.value.code == -3


async def test_a_download_with_a_plugin(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def download_model(kernel: Kernel, model_info: ModelDownloadInfo) -> None:
        asked.append(model_info)

    class Downloads:
        @hookimpl
        def register_methods(self) -> Mapping[str, Any]:
            return {"downloadModel": download_model}

    async with gateway(tmp_path, Downloads()), AsyncClient(home=tmp_path) as client:
        models = await client.store("models")
        await models.download_model(DOWNLOAD)
    assert asked == [DOWNLOAD]


async def test_nothing_is_left_when_a_kernel_with_stores_closes(tmp_path: Path) -> None:
    with nothing_leaks():
        async with gateway(tmp_path, Fake()) as (kernel, _), AsyncClient(home=tmp_path) as client:
            for name in kernel.stores.names():
                await kernel.store(name)
                await client.store(name)
