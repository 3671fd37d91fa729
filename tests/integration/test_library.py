"""The models of a kernel: its methods, its events, watching."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests import model_files as files
from tests.fakes import Fake, eventually, kernel
from tests.gguf_files import MODEL, Gguf, write_split

from aiplayground import Kernel, hookimpl
from aiplayground.errors import FileOperationError, InvalidParameters, ModelNotFound
from aiplayground.events import ModelsChanged, Snapshot
from aiplayground.models import KINDS, ModelScan
from aiplayground.types import ModelInfo


class Serves(Fake):
    """A backend for the GGUF files that lie here."""

    @hookimpl
    async def list_models(  # type: ignore[override]  # a hook takes what it wants
        self, ctx: Any
    ) -> list[ModelInfo]:
        return [
            ModelInfo(name=each.name, path=str(each.path), size=each.size, format=each.format)
            for each in await ctx.local_models()
        ]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, Serves()) as one:
        yield one


async def test_the_paths_have_the_documented_keys(running: Kernel) -> None:
    found = await running.call("getModelPaths")
    assert list(found) == list(KINDS)
    assert found["llm"] == (running.paths.models / "llm").as_posix()


async def test_models_are_listed_with_who_serves_them(running: Kernel) -> None:
    path = Gguf().write(running.model_paths.folder("llm") / "a.gguf")
    files.safetensors(running.model_paths.folder("lora") / "style.safetensors")
    lora: dict[str, Any]
    a, lora = await running.call("loadModels")
    assert a == {
        "name": "a",
        "path": str(path),
        "type": "llm",
        "size": path.stat().st_size,
        "loaded": False,
        "format": "gguf",
        "backend": "fake",
    }
    assert (lora["name"], lora["type"], lora["format"]) == ("style", "lora", "safetensors")
    assert "backend" not in lora


async def test_what_a_backend_has_in_memory_is_loaded(running: Kernel) -> None:
    Gguf().write(running.model_paths.root / "a.gguf")
    await running.call("ensureBackendReadiness", "fake", "a")
    [a] = await running.call("loadModels")
    assert a["loaded"] is True


async def test_two_backends_of_one_file_are_one_entry(tmp_path: Path) -> None:
    async with kernel(tmp_path, Serves("one"), Serves("two")) as both:
        Gguf().write(both.model_paths.root / "a.gguf")
        [a] = await both.call("loadModels")
        assert (a["backend"], a["backends"]) == ("one", ["one", "two"])
        await both.ensure_ready("two", "a")
        [a] = await both.call("loadModels")
        assert (a["backend"], a["loaded"]) == ("two", True)


async def test_a_listing_looks_at_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kernel(tmp_path, Serves("one"), Serves("two")) as both:
        looks = []
        scan = both.library._index.scan

        def counted(*given: Any) -> ModelScan:
            looks.append(given)
            return scan(*given)

        monkeypatch.setattr(both.library._index, "scan", counted)
        await both.call("loadModels")
        assert len(looks) == 1
        await both.models()
        assert len(looks) == 2


async def test_a_task_that_outlives_a_listing_looks_for_itself(running: Kernel) -> None:
    with running.library.one_look():
        assert (await running.library.scan()).models == ()
        over = asyncio.Event()

        async def later() -> int:
            await over.wait()
            return len((await running.library.scan()).models)

        task = asyncio.create_task(later())
        Gguf().write(running.model_paths.root / "a.gguf")
        assert (await running.library.scan()).models == ()
    over.set()
    assert await task == 1


# checkModelExists -------------------------------------------------------------------------------


async def exists(running: Kernel, path: object) -> bool:
    found = await running.call("checkModelExists", str(path))
    assert isinstance(found, bool)
    return found


async def test_files_and_folders_exist_relative_to_the_roots(running: Kernel) -> None:
    llm = running.model_paths.folder("llm")
    Gguf().write(llm / "a.gguf")
    Gguf().write(llm / "repo" / "b.gguf")
    files.transformers(llm / "t")
    files.write(running.model_paths.folder("vae") / "v.pt")
    for path in (
        "llm/a.gguf", llm / "a.gguf", "llm/repo", "llm/repo/b.gguf", "llm/t", "llm/t/config.json",
        "llm/t/model.safetensors", "vae/v.pt", "llm",
    ):  # fmt: skip
        assert await exists(running, path) is True, path
    for path in ("llm/b.gguf", "a.gguf", "llm/none", "lora", "x" * 400, "llm/a.gguf/b"):
        assert await exists(running, path) is False, path


async def test_a_split_model_exists_when_it_is_whole(running: Kernel) -> None:
    parts = write_split(running.model_paths.root, "big", 3)
    assert [await exists(running, each.name) for each in parts] == [True, True, True]
    parts[1].unlink()
    assert [await exists(running, each.name) for each in parts] == [False, False, False]


@pytest.mark.parametrize(
    "name", ["x.gguf.part", "x.gguf.incomplete", ".x.gguf", "x_.tmp/x.gguf", ".cache/x.gguf"]
)
async def test_a_partial_download_never_counts(running: Kernel, name: str) -> None:
    Gguf().write(running.model_paths.root / name)
    assert await exists(running, name) is False


async def test_nor_does_what_aria2_or_a_broken_copy_left(running: Kernel) -> None:
    root = running.model_paths.root
    files.write(Gguf().write(root / "x.gguf").with_name("x.gguf.aria2"))
    files.write(root / "cut.gguf", Gguf().to_bytes()[:-40])
    assert await exists(running, "x.gguf") is False
    assert await exists(running, "cut.gguf") is False


@pytest.mark.parametrize("path", ["/etc/passwd", "../config/config.toml", "llm/../../x"])
async def test_nothing_outside_is_looked_at(running: Kernel, path: str) -> None:
    with pytest.raises(InvalidParameters) as refused:
        await running.call("checkModelExists", path)
    assert refused.value.details["reason"] == "outside"


# Changes ----------------------------------------------------------------------------------------


async def changed(events: AsyncIterator[object]) -> ModelsChanged:
    async with asyncio.timeout(30):
        async for event in events:
            if isinstance(event, ModelsChanged):
                return event
    raise AssertionError("the events ended")


async def changed_to(events: AsyncIterator[object], count: int) -> None:
    """Wait until so many models are told; a look may have come while a file was being written."""
    while (await changed(events)).count != count:
        pass


async def test_refreshing_tells_of_changes_and_of_nothing_else(running: Kernel) -> None:
    await running.call("loadModels")
    async with running.subscribe(snapshot=False) as events:  # of every kind: nothing is watched
        assert not running._watch.running
        await running.call("refreshLLMModels")
        Gguf().write(running.model_paths.root / "a.gguf")
        await running.call("refreshLLMModels")
        await running.call("refreshLLMModels")
        event = await changed(events)
        assert event.count == 1
        assert not events._pending


@pytest.mark.parametrize("how", ["auto", "poll"])
async def test_folders_are_watched_while_somebody_listens(tmp_path: Path, how: str) -> None:
    settings = {"models.watch": how, "models.watch_interval": 0.05}
    async with kernel(tmp_path, Serves(), settings=settings) as one:
        assert not one._watch.running
        async with one.subscribe(ModelsChanged) as events:
            assert isinstance(await anext(events), Snapshot)
            assert one._watch.running
            await one.call("loadModels")
            path = Gguf().write(one.model_paths.folder("llm") / "a.gguf")
            await changed_to(events, 1)
            path.unlink()
            await changed_to(events, 0)
        await eventually(lambda: not one._watch.running)


async def test_a_folder_that_comes_later_is_watched(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    settings = {"models.folders": [str(folder)]}
    async with kernel(tmp_path, settings=settings) as one, one.subscribe(ModelsChanged) as events:
        await one.call("loadModels")
        folder.mkdir()
        Gguf().write(folder / "a.gguf")
        await changed_to(events, 1)


async def test_where_the_system_does_not_tell_the_folders_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refuse)
    settings = {"models.watch_interval": 0.05}
    async with kernel(tmp_path, settings=settings) as one, one.subscribe(ModelsChanged) as events:
        await one.call("loadModels")
        Gguf().write(one.model_paths.root / "a.gguf")
        await changed_to(events, 1)
        assert any("inotify watch limit" in line.text for line in one.log().tail(50))


async def test_watching_can_be_off(tmp_path: Path) -> None:
    settings = {"models.watch": "off"}
    async with kernel(tmp_path, settings=settings) as one, one.subscribe(ModelsChanged):
        assert not one._watch.running


# Removal ----------------------------------------------------------------------------------------


async def test_a_model_is_removed(running: Kernel) -> None:
    path = Gguf().write(running.model_paths.folder("llm") / "a.gguf")
    removal = await running.library.plan_removal("a")
    assert removal.freed == path.stat().st_size
    await running.library.remove(removal)
    assert await running.call("loadModels") == []
    with pytest.raises(ModelNotFound):
        await running.library.plan_removal("a")


async def test_the_guide_of_a_package_is_not_ours_to_remove(tmp_path: Path) -> None:
    pack = Gguf().write(tmp_path / "package" / "guide.gguf")

    class Pack(Fake):
        @hookimpl
        def model_files(self) -> list[Path]:
            return [pack]

    async with kernel(tmp_path / "home", Pack()) as one:
        with pytest.raises(FileOperationError, match="outside our model folders"):
            await one.library.plan_removal("guide")


async def test_plugins_get_the_formats_that_they_ask_for(tmp_path: Path) -> None:
    seen: dict[str, list[str]] = {}

    class Asks(Fake):
        @hookimpl
        async def list_models(  # type: ignore[override]  # a hook takes what it wants
            self, ctx: Any
        ) -> list[ModelInfo]:
            seen["gguf"] = [each.name for each in await ctx.local_models()]
            other = await ctx.local_models(formats=("openvino",))
            seen["openvino"] = [each.name for each in other]
            assert (await ctx.find_model("o", formats=("openvino",))).name == "o"
            return []

    async with kernel(tmp_path, Asks()) as one:
        Gguf(MODEL).write(one.model_paths.root / "a.gguf")
        files.openvino(one.model_paths.root / "o")
        await one.models()
    assert seen == {"gguf": ["a"], "openvino": ["o"]}


@pytest.mark.skipif(os.name != "posix", reason="XDG variables")
async def test_the_hugging_face_cache_is_read_where_settings_say(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    snapshot = tmp_path / "hub" / "models--o--n" / "snapshots" / ("a" * 40)
    Gguf().write(snapshot / "x.gguf")
    settings = {"models.external": ["huggingface"]}
    async with Kernel(
        home=tmp_path / "h", discover=False, settings=settings, environ=environ
    ) as one:
        [model] = await one.call("loadModels")
        assert (model["name"], model["repo"]) == ("x", "o/n")
        with pytest.raises(FileOperationError, match="only read"):
            await one.library.plan_removal("x")
