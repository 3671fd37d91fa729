"""Chromium, driven over its own protocol (Chrome DevTools Protocol, https://chromedevtools.github.io).

Nothing but a WebSocket is needed for that. Where there is no Chromium, tests that use it are
skipped and say so; `AIPG_CHROMIUM` names another program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

PATIENCE = 30.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

PROGRAM = os.environ.get("AIPG_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = pytest.mark.skipif(
    PROGRAM is None,
    reason="there is no Chromium here (Debian's package chromium, or set AIPG_CHROMIUM)",
)

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Raised(Exception):
    """What a script in the page threw; `value` is the thrown object as JSON."""

    def __init__(self, text: str, value: Any) -> None:
        super().__init__(text)
        self.value = value


class Page:
    """One tab. `problems` are messages of the console that tell of an error."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._heard = asyncio.Event()
        self.problems: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self._connection:
            told = json.loads(text)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            else:
                self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        params = told["params"]
        if told["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        if told["method"] == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"]["text"])
        self._events.append(told)
        self._heard.set()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        id_ = next(self._ids)
        self._waiting[id_] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": id_, "method": method, "params": params}))
        async with asyncio.timeout(PATIENCE):
            told: dict[str, Any] = await self._waiting[id_]
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def open(self, url: str) -> None:
        self._events.clear()
        await self.ask("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE):
            while not any(each["method"] == "Page.loadEventFired" for each in self._events):
                self._heard.clear()
                await self._heard.wait()

    async def run(self, script: str) -> Any:
        """Run statements with `await` and `return` in them; raises `Raised`."""
        told = await self.ask(
            "Runtime.evaluate",
            expression="(async () => { try { return { value: await (async () => {"
            + script
            + "})() } } catch (e) { return { thrown: { text: String(e), code: e?.code,"
            + " details: e?.details, isError: e instanceof Error } } } })()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in told, told
        outcome = told["result"]["value"]
        if "thrown" in outcome:
            raise Raised(outcome["thrown"]["text"], outcome["thrown"])
        return outcome.get("value")

    async def until(self, condition: str) -> Any:
        """Wait until an expression is truthy in the page; returns it."""
        async with asyncio.timeout(PATIENCE):
            while not (found := await self.run(f"return {condition}")):
                await asyncio.sleep(0.02)
        return found

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait({self._reader})


@contextlib.asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Callable[[], Any]]:
    """Run Chromium; yields what opens a page."""
    assert PROGRAM is not None
    process = subprocess.Popen(
        [PROGRAM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        yield lambda: _page(port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


async def _port(note: Path, process: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(PATIENCE):
        while not (note.exists() and note.read_text().strip()):
            assert process.poll() is None, f"Chromium ended with {process.returncode}"
            await asyncio.sleep(0.02)
    return int(note.read_text().split()[0])


@contextlib.asynccontextmanager
async def _page(port: int) -> AsyncIterator[Page]:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        target = (await client.put(f"http://127.0.0.1:{port}/json/new?about:blank")).json()
    url = target["webSocketDebuggerUrl"]
    async with connect(url, max_size=2**26, proxy=None, ping_interval=None) as connection:
        page = Page(connection)
        try:
            for domain in ("Page", "Runtime", "Log"):
                await page.ask(f"{domain}.enable")
            yield page
        finally:
            await page.close()
