"""`window.electronAPI` and the status page, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import eventually
from tests.gguf_files import Gguf
from tests.unit.test_files import PNG, TEXT

from aiplayground import Kernel
from aiplayground.events import ModelDownloadProgress, WebServiceExit
from aiplayground.methods import METHODS
from aiplayground_ai_backend.ipc.pages import script, status_page

from .browser import Page, Raised, browser, needs_browser
from .serving import Engine, gateway

LINK = "serve.json"


@asynccontextmanager
async def page(home: Path, *, logged_in: bool = True) -> AsyncIterator[tuple[Kernel, Page]]:
    """Open the status page in a browser; logged in over the link that `aipg serve` prints."""
    plugins = (Engine("llamacpp-backend"), Engine("comfyui-backend"))
    async with (
        gateway(home, *plugins) as (kernel, client),
        browser(home / "profile") as new,
        new() as one,
    ):
        told = json.loads((kernel.paths.runtime / LINK).read_text())
        await one.open(told["link"] if logged_in else str(client.base_url))
        yield kernel, one
        assert one.problems == []


# The examples of the API reference, word for word ----------------------------------------------

EXAMPLES = {
    "getServices": """
const services = await window.electronAPI.getServices()
console.log(services[0].currentStatus) // 'Running'
""",
    "sendStartSignal": """
const status = await window.electronAPI.sendStartSignal('ai-backend')
""",
    "setUpService": """
window.electronAPI.onServiceSetUpProgress((progress) => {
  console.log(`${progress.stage}: ${progress.progress}%`)
})

await window.electronAPI.setUpService('comfyui-backend')
""",
    "getModelPaths": """
const paths = await window.electronAPI.getModelPaths()
console.log(paths.llm) // "C:/Users/username/ai-models/llm"
""",
    "showOpenDialog": """
const files = await window.electronAPI.showOpenDialog({
  title: 'Select Images',
  filters: [{ name: 'Images', extensions: ['png', 'jpg', 'jpeg'] }],
  properties: ['openFile', 'multiSelections']
})
""",
}
KEEP = "const said = []; const console = { log: (text) => said.push(text) };"


class Window:
    """A window whose user chooses two pictures."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    async def show_open_dialog(self, options: Mapping[str, Any]) -> list[str]:
        self.asked.append(options)
        return ["/a.png", "/b.jpg"]

    async def show_save_dialog(self, options: Mapping[str, Any]) -> None:
        return None


@needs_browser
async def test_the_examples_of_the_reference_run_as_written(tmp_path: Path) -> None:
    async with page(tmp_path) as (kernel, one):
        code = KEEP + EXAMPLES["getServices"] + "return [services, said]"
        services, said = await one.run(code)
        assert {each["name"] for each in services} == {s.name for s in kernel.services()}
        assert said == [services[0]["currentStatus"]]
        running = next(each for each in services if each["name"] == "ai-backend")
        assert running["currentStatus"] == "Running"
        assert running["isRequired"] is True

        assert await one.run(EXAMPLES["sendStartSignal"] + "return status") == "Running"

        # Of steps that follow each other at once, the newest alone may be told.
        last = "while (said.at(-1) !== 'verify: 100%') await new Promise((r) => setTimeout(r, 10))"
        await one.run(KEEP + EXAMPLES["setUpService"] + last)

        paths, said = await one.run(KEEP + EXAMPLES["getModelPaths"] + "return [paths, said]")
        assert said == [(kernel.paths.models / "llm").as_posix()]
        assert {"llm", "embedding", "checkpoint", "inpaint", "lora", "vae"} <= set(paths)

        window = Window()
        detach = kernel.attach_shell(window)
        files = await one.run(EXAMPLES["showOpenDialog"] + "return files")
        assert files == ["/a.png", "/b.jpg"]
        assert window.asked == [
            {
                "title": "Select Images",
                "filters": [{"name": "Images", "extensions": ["png", "jpg", "jpeg"]}],
                "properties": ["openFile", "multiSelections"],
            }
        ]
        code = "return (await electronAPI.showSaveDialog({ title: 'Save' })) === undefined"
        assert await one.run(code) is True
        detach()
        with pytest.raises(Raised) as refused:
            await one.run(EXAMPLES["showOpenDialog"])
        assert refused.value.value["code"] == -3
        assert refused.value.value["details"] == {"reason": "no-shell"}
        assert refused.value.value["isError"] is True


@needs_browser
async def test_every_method_and_event(tmp_path: Path) -> None:
    async with page(tmp_path) as (kernel, one):
        names = await one.run("return Object.keys(electronAPI)")
        assert set(METHODS) <= set(names)
        listeners = {name for name in names if name.startswith("on")}
        assert {"onServiceSetUpProgress", "onServiceInfoUpdate", "onWebServiceExit"} <= listeners
        assert "onModelDownloadProgress" in listeners

        # Those without an example.
        assert await one.run("return await electronAPI.sendStartSignal('llamacpp-backend')")
        ready = "electronAPI.ensureBackendReadiness('llamacpp-backend', 'm')"
        assert await one.run(f"return await {ready} === undefined") is True
        assert await one.run("return await electronAPI.sendStopSignal('llamacpp-backend')") == (
            "Stopped"
        )
        [*_, cpu] = await one.run("return await electronAPI.detectDevices()")
        assert cpu["type"] == "CPU"
        assert await one.run("return await electronAPI.selectDevice('cpu')") is None
        path = Path(await one.run(f"return await electronAPI.saveImage('{TEXT}', 'a.png')"))
        assert path.read_bytes() == PNG
        for call, code in (
            ("miniWindow()", -3),
            ("exitApp()", -3),
            ("setFullScreen(true)", -3),
            ("setFullScreen('yes')", -4),
            ("showSaveDialog({})", -3),
            ("openImageWithSystem('/etc/passwd')", -5),
            ("sendStartSignal('nothing')", -3),
            ("sendStartSignal()", -4),
            ("selectDevice('H100')", -4),
            ("['comfyui:downloadCustomNode']({ repository: 'https://x/y', commit: 'main' })", -3),
            ("['comfyui:listInstalledCustomNodes']()", -3),
            ("checkModelExists('/etc/passwd')", -4),
        ):
            with pytest.raises(Raised) as refused:
                await one.run(f"await electronAPI{'' if call[0] == '[' else '.'}{call}")
            assert refused.value.value["code"] == code, call

        await one.run(
            """window.seen = []
            electronAPI.onWebServiceExit((...given) => seen.push(given))
            electronAPI.onModelDownloadProgress((...given) => seen.push(given))
            window.updates = []
            window.end = electronAPI.onServiceInfoUpdate((...given) => updates.push(given))"""
        )
        bus = kernel._bus
        bus.publish(WebServiceExit(service="llamacpp-backend", worker="main", exit_code=-9))
        bus.publish(ModelDownloadProgress(filename="m.gguf", progress=45, speed="12.5 MB/s"))
        assert await one.until("seen.length === 2 && seen") == [
            ["llamacpp-backend", -9],
            [{"filename": "m.gguf", "progress": 45, "speed": "12.5 MB/s"}],
        ]
        await kernel.start("llamacpp-backend")
        [services] = await one.until("updates.length > 0 && updates.at(-1)")
        assert [each["name"] for each in services] == [each.name for each in kernel.services()]


@needs_browser
async def test_the_methods_for_models_and_their_event(tmp_path: Path) -> None:
    async with page(tmp_path) as (kernel, one):
        listed = await one.run("return await electronAPI.loadModels()")
        assert {(each["name"], each["backend"]) for each in listed} == {
            ("m", "comfyui-backend"),
            ("m", "llamacpp-backend"),
        }
        exists = "return await electronAPI.checkModelExists('llm/new.gguf')"
        assert await one.run(exists) is False
        await one.run("window.changes = []")
        await one.run("electronAPI.onModelsChanged((change) => changes.push(change))")
        await eventually(lambda: kernel._watch.running)
        Gguf().write(kernel.model_paths.folder("llm") / "new.gguf")
        assert (await one.until("changes.length > 0 && changes.at(-1)"))["count"] == 1
        assert await one.run(exists) is True
        listed = await one.run("return await electronAPI.loadModels()")
        (new,) = [each for each in listed if each["name"] == "new"]
        assert new["path"].endswith("models/llm/new.gguf")
        assert (new["type"], new["format"], new["loaded"]) == ("llm", "gguf", False)
        assert new["contextLength"] == 128
        assert await one.run("return await electronAPI.refreshLLMModels() === undefined") is True


@needs_browser
async def test_a_page_that_is_not_logged_in_looks_but_changes_nothing(tmp_path: Path) -> None:
    async with page(tmp_path, logged_in=False) as (kernel, one):
        assert len(await one.run("return await electronAPI.getServices()")) == 3
        with pytest.raises(Raised) as refused:
            await one.run("await electronAPI.sendStartSignal('llamacpp-backend')")
        assert refused.value.value["details"] == {"reason": "unauthorized"}
        assert kernel.service("llamacpp-backend").runtime == "stopped"


@needs_browser
async def test_a_page_finds_back_after_the_gateway_was_away(tmp_path: Path) -> None:
    async with page(tmp_path) as (kernel, one):
        await one.run("window.updates = []")
        await one.run("electronAPI.onServiceInfoUpdate((services) => updates.push(services))")
        await one.until("updates.length > 0 || document.querySelectorAll('#services tr').length")
        await kernel.stop("ai-backend")
        await kernel.start("llamacpp-backend")  # what the page cannot see
        await kernel.start("ai-backend")
        await one.until(
            "updates.at(-1)?.some((s) => s.name === 'llamacpp-backend' "
            "&& s.currentStatus === 'Running')"
        )
        assert await one.run("return (await electronAPI.getServices()).length") == 3
        one.problems.clear()  # the browser notes each attempt to connect that failed


@needs_browser
async def test_the_status_page_works(tmp_path: Path) -> None:
    async with page(tmp_path) as (kernel, one):
        await one.until("document.querySelectorAll('#services tr').length === 3")
        assert await one.run("return document.querySelector('#model').value") in {
            "comfyui-backend/m",
            "llamacpp-backend/m",
        }
        await one.run("document.querySelector('[aria-label=\"Start llamacpp-backend\"]').click()")
        await eventually(lambda: kernel.service("llamacpp-backend").status == "Running")
        await one.until("document.querySelector('[aria-label=\"Stop llamacpp-backend\"]') !== null")
        await one.until(
            "[...document.querySelectorAll('#events li')].some((li) => "
            "li.textContent.endsWith('llamacpp-backend: Running'))"
        )
        await one.run(
            "document.querySelector('#model').value = 'llamacpp-backend/m'; "
            "document.querySelector('#send').click()"
        )
        assert await one.until("document.querySelector('#answer').textContent === 'abc'")
        assert await one.run("return document.querySelector('#problem').textContent") == ""


# Without a browser -----------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere() -> None:
    content, policy = status_page()
    text = content.decode()
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    assert "style=" not in text  # the policy would refuse it
    assert not re.search(r"\son\w+=", text)
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe" not in policy


def test_the_script_has_the_whole_table() -> None:
    text = script(METHODS)
    assert "/*TABLE*/" not in text
    for name in METHODS:
        assert json.dumps(name) in text


async def test_pages_are_served_with_their_policy(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, client):
        shown = await client.get("/")
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert shown.headers["content-security-policy"] == status_page()[1]
        api = await client.get("/electron-api.js")
        assert api.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (await client.get("/", headers={"host": "evil.example"})).status_code == 403
        foreign = {"origin": "https://evil.example"}
        assert (await client.get("/electron-api.js", headers=foreign)).status_code == 403
