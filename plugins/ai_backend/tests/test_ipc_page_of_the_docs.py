"""The examples of `docs/ipc.md` run as they stand, against a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
from tests.fakes import Fake
from websockets.asyncio.client import connect

from aiplayground.client import AsyncClient

from .browser import browser, needs_browser
from .serving import gateway, token

PAGE = (Path(__file__).parents[3] / "docs/ipc.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_its_examples() -> None:
    counts = {name: len(fenced(name)) for name in ("python", "js", "json", "html")}
    assert counts == {"python": 3, "js": 1, "json": 2, "html": 1}


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "llamacpp-backend Installed"), (1, "Running")],
)
async def test_python(tmp_path: Path, number: int, says: str) -> None:
    async with gateway(tmp_path, Fake("llamacpp-backend")):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", fenced("python")[number]),
            env={**os.environ, "AIPG_HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await child.communicate()
    assert (child.returncode, err.decode()) == (0, "")
    assert says in out.decode()


async def test_a_plugin_with_a_method(tmp_path: Path) -> None:
    plugin = types.ModuleType("plugin")
    exec(compile(fenced("python")[2], "plugin", "exec"), plugin.__dict__)
    plugins = (Fake("llamacpp-backend", models=("a", "b")), Fake("other"), plugin)
    async with gateway(tmp_path, *plugins) as (kernel, client):
        assert await kernel.call("countModels") == 3
        assert await kernel.call("countModels", serviceName="other") == 1
        assert '"countModels"' in (await client.get("/electron-api.js")).text
        async with AsyncClient(str(client.base_url)) as stranger:
            assert await stranger.call("countModels", "llamacpp-backend") == 2


@needs_browser
async def test_javascript(tmp_path: Path) -> None:
    plugins = (Fake("llamacpp-backend"),)
    async with (
        gateway(tmp_path, *plugins) as (kernel, client),
        browser(tmp_path / "profile") as new,
        new() as page,
    ):
        served = await client.get("/electron-api.js")
        assert f'src="{served.url.path}"' in fenced("html")[0]
        await page.open(json.loads((kernel.paths.runtime / "serve.json").read_text())["link"])
        await page.run(fenced("js")[0])
        assert kernel.service("llamacpp-backend").status == "Running"
        assert page.problems == []


async def test_json(tmp_path: Path) -> None:
    request, notification = (json.loads(each) for each in fenced("json"))
    async with gateway(tmp_path, Fake("llamacpp-backend")) as (kernel, client):
        url = str(client.base_url).replace("http", "ws") + "/ipc"
        async with connect(url, additional_headers=token(kernel), proxy=None) as one:
            await one.send(json.dumps(request))
            answer = json.loads(await asyncio.wait_for(one.recv(), 30))
    assert answer == {"jsonrpc": "2.0", "id": 1, "result": "Running"}
    assert set(notification["params"]) == {"seq", "time", "data"}
