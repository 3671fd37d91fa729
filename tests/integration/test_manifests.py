"""Backends that are a file: found, run, supervised and set like any other."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.endpoints import Server
from tests.fakes import (
    SERVER,
    alive,
    ask,
    eventually,
    kernel,
    nothing_leaks,
    question,
    spawned,
    statuses,
    until,
)
from tests.gguf_files import Gguf

from aiplayground._loader import load_plugins
from aiplayground.admission._measure import Reading
from aiplayground.errors import (
    InvalidParameters,
    NotEnoughMemory,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.events import ModelUnloaded, ServiceInfoUpdate, WebServiceExit
from aiplayground.kernel import Kernel
from aiplayground.manifest import load_manifest
from aiplayground.settings import Layers, load_layers, rows, settings_class

MANIFEST = """
name = "small"
command = ["{{python}}", "-I", "-S", {server!r}, "{{port}}", "count={count}", {more}]
capabilities = ["chat", "embedding"]
parameters = ["seed"]
ready = "/up"
"""
PER_MODEL = '"models={model.name}"'
NAMED = '\nmodels = ["a", "b", { name = "c", path = "c.bin", embedding = true }]\n'


@pytest.fixture
def count(tmp_path: Path) -> Path:
    return tmp_path / "count"


def write(tmp_path: Path, more: str = "", rest: str = "", name: str = "small.toml") -> Path:
    text = MANIFEST.format(server=SERVER, count=tmp_path / "count", more=more)
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + rest)
    return file


def backend(tmp_path: Path, more: str = "", rest: str = "") -> Any:
    plugin = load_manifest(write(tmp_path, more, rest))
    plugin.spec = plugin.backend()  # type: ignore[attr-defined]  # where `kernel` finds the name
    return plugin


def state(k: Kernel) -> str:
    return k.service("small").runtime.value


async def test_a_program_that_runs_once(tmp_path: Path, count: Path) -> None:
    plugin = backend(tmp_path, '"models=one,two"')
    with nothing_leaks():
        async with kernel(tmp_path, plugin) as k:
            assert await k.models() == [], "only the program knows"
            info = await k.start("small")
            assert [worker.name for worker in info.workers] == ["main"]
            assert [model.name for model in await k.models()] == ["one", "two"]
            assert await ask(k, "two", seed=3) == "word word word "
            with pytest.raises(InvalidParameters, match="small does not support temperature"):
                await ask(k, "two", temperature=1.0)
            (program,) = spawned(count)
            assert (await k.stop("small")).status == "Stopped"
            assert not alive(program)


async def test_the_model_that_it_starts_with_has_to_fit(tmp_path: Path, count: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own.gguf").write_bytes(Gguf().to_bytes())
    async with kernel(tmp_path, backend(tmp_path, PER_MODEL)) as k:
        k._host.admission.probe = lambda pids: Reading(0)
        with pytest.raises(NotEnoughMemory, match=r"own needs .* \(by the size of"):
            await k.start("small")
        assert spawned(count) == []
        k._host.admission.probe = lambda pids: Reading(2**34)
        assert (await k.start("small")).models == ("own",)


async def test_a_program_for_each_model(tmp_path: Path, count: Path) -> None:
    plugin = backend(tmp_path, PER_MODEL, NAMED)
    async with kernel(tmp_path, plugin) as k:
        assert [(each.name, each.type) for each in await k.models()] == [
            ("a", "llm"),
            ("b", "llm"),
            ("c", "embedding"),
        ]
        assert await ask(k, "b") == "word word word "
        (main,) = k.service("small").workers
        assert (main.name, main.primary, main.model) == ("model:b", True, "b")
        await k.embed({"model": "c", "input": ["x"]})
        workers = {each.model: each for each in k.service("small").workers}
        assert (workers["b"].primary, workers["c"].primary) == (True, False)
        assert workers["b"].base_url != workers["c"].base_url
        assert len(spawned(count)) == 2
        await ask(k, "a")  # `residency.max_models` is 2: b was used longest ago
        info = k.service("small")
        assert sorted(info.models) == ["a", "c"]
        assert info.runtime == "running"
        primaries = {each.model: each.primary for each in info.workers}
        assert primaries == {"c": False, "a": True}, "the next one takes the place"
        await k.unload("small", "a")
        await eventually(lambda: k.service("small").workers[0].primary)
        assert state(k) == "running", "the one that is left stands in"
        await k.stop("small")
        assert not [pid for pid in spawned(count) if alive(pid)]


async def test_a_start_without_a_model_takes_the_first(tmp_path: Path) -> None:
    async with kernel(tmp_path, backend(tmp_path, PER_MODEL, NAMED)) as k:
        assert (await k.start("small")).models == ("a",)
        assert (await k.restart("small")).models == ("a",)


async def test_without_any_model_the_error_says_where_to_put_one(tmp_path: Path) -> None:
    rest = '\n[models]\nfolder = "weights"\npattern = "*.bin"\n'
    async with kernel(tmp_path, backend(tmp_path, PER_MODEL, rest)) as k:
        with pytest.raises(ServiceNotAvailable, match=r"without a model, .*Put one into .*weights"):
            await k.start("small")
        (tmp_path / "weights").mkdir()
        for name in ("old.bin", "new.bin", "other.txt"):
            (tmp_path / "weights" / name).touch()
        os.utime(tmp_path / "weights" / "old.bin", (1, 1))
        assert [each.name for each in await k.models()] == ["new", "old"]
        assert (await k.start("small")).models == ("new",), "the newest"


async def test_its_last_model_unloaded_stops_it_and_a_request_starts_it(tmp_path: Path) -> None:
    plugin = backend(tmp_path, PER_MODEL, NAMED)
    async with kernel(tmp_path, plugin, settings={"residency": {"idle_timeout": 0.2}}) as k:
        states = k.subscribe(ServiceInfoUpdate)
        unloads = k.subscribe(ModelUnloaded, snapshot=False)
        assert await ask(k, "a")
        event = await until(unloads, ModelUnloaded)
        assert isinstance(event, ModelUnloaded)
        assert (event.model, event.reason) == ("a", "idle")
        await eventually(lambda: state(k) == "stopped")
        assert k.service("small").error is None
        assert k.service("small").workers == ()
        assert await ask(k, "b") == "word word word "
    async with states:
        seen = statuses([event async for event in states], "small")
    assert seen[:6] == ["Installed", "Starting", "Running", "Stopping", "Stopped", "Starting"]


async def test_one_model_at_a_time(tmp_path: Path, count: Path) -> None:
    plugin = backend(tmp_path, PER_MODEL, NAMED)
    async with kernel(tmp_path, plugin, settings={"residency": {"max_models": 1}}) as k:
        for name in ("a", "b", "a"):
            assert await ask(k, name) == "word word word "
            assert k.service("small").models == (name,)
        assert [alive(pid) for pid in spawned(count)] == [False, False, True]
        assert state(k) == "running"


async def test_it_is_restarted_when_it_is_killed(tmp_path: Path, count: Path) -> None:
    async with kernel(tmp_path, backend(tmp_path, PER_MODEL, NAMED)) as k:
        exits = k.subscribe(WebServiceExit, snapshot=False)
        answer = k.chat(question("a"))
        await anext(answer)
        os.kill(spawned(count)[-1], signal.SIGKILL)
        with pytest.raises(ServiceFailed, match="SIGKILL"):
            async for _ in answer:
                pass
        await until(exits, WebServiceExit)
        await eventually(lambda: state(k) == "running")
        assert await ask(k, "a") == "word word word "
        assert len(spawned(count)) == 2


async def test_the_key_is_asked_for_and_sent(tmp_path: Path) -> None:
    async with kernel(tmp_path, backend(tmp_path, '"key={key}"')) as k:
        info = await k.start("small")
        assert await ask(k) == "word word word "
        import httpx

        async with httpx.AsyncClient(trust_env=False) as stranger:
            assert (await stranger.get(info.base_url + "/v1/models")).status_code == 401


async def test_its_settings_are_those_of_any_backend(tmp_path: Path, count: Path) -> None:
    rest = """
env = { MARK = "{settings.mark}" }
[settings]
chunks = { default = 2, min = 1, description = "Words in an answer." }
mark = { type = "text" }
"""
    plugin = backend(tmp_path, '"chunks={settings.chunks}"', rest)
    given = {"services": {"small": {"chunks": 5}}}
    async with kernel(tmp_path, plugin, settings=given) as k:
        await k.start("small")
        assert await ask(k) == "word " * 5
    model = settings_class(plugin.spec)
    environ = {"AIPG_SERVICES__SMALL__CHUNKS": "7"}
    layers: Layers = load_layers(k.paths, environ)
    found = {row.key: row for row in rows(layers, {"small": model})}
    row = found["services.small.chunks"]
    assert (row.value, row.default, row.description) == (7, 2, "Words in an answer.")
    assert row.origin == "environment variable AIPG_SERVICES__SMALL__CHUNKS"
    async with kernel(tmp_path, plugin, settings={"services": {"small": {"chunks": 0}}}) as k:
        error = k.service("small").error
        assert error is not None
        assert "'services.small.chunks' must be at least 1, not 0." in error["message"]


async def test_a_program_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('name = "small"\ncommand = ["no-such-program", "{port}"]')
    async with Kernel(home=tmp_path, plugins={"small": file}, discover=False, environ={}) as k:
        info = k.service("small")
        assert info.status == "NotInstalled"
        assert info.error is not None
        assert "there is no program 'no-such-program'. Install it, or" in info.error["message"]
        with pytest.raises(ServiceNotAvailable, match="no-such-program"):
            await k.start("small")


async def test_a_manifest_can_be_attached_too(tmp_path: Path, count: Path) -> None:
    with Server() as server:
        settings = {"services": {"small": {"attach": {"url": server.url}}}}
        async with kernel(tmp_path, backend(tmp_path), settings=settings) as k:
            assert await ask(k) == "word word word "
            assert k.service("small").attached
    assert spawned(count) == []


async def test_the_backends_folder_is_searched(tmp_path: Path) -> None:
    write(tmp_path, name="config/backends/small.toml")
    (tmp_path / "config/backends/bad.toml").write_text('name = "bad"\ncomand = []')
    write(tmp_path, name="config/backends/zz-again.toml")
    async with Kernel(home=tmp_path, environ={}) as k:
        (plugin,) = (each for each in k.plugins.loaded if each.name == "small")
        assert plugin.source == str(tmp_path / "config/backends/small.toml")
        assert (await k.start("small")).status == "Running"
        bad, again = (each for each in k.plugins.failures)
        assert "config/backends/bad.toml, line 2: there is no key 'comand'." in bad.message
        assert "service 'small' is claimed by two" in again.message
    denied = {"plugins": {"deny": ["small", "bad", "zz-again"]}}
    assert Kernel(home=tmp_path, environ={}, settings=denied).plugins.disabled == (
        "bad",
        "small",
        "zz-again",
    )
    assert not Kernel(home=tmp_path, environ={}, discover=False).plugins.loaded


def test_a_package_may_hold_a_manifest_and_no_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, name="aipgtest_packed/aiplayground.toml")
    (tmp_path / "aipgtest_packed/__init__.py").write_text('"""Nothing but a manifest."""')
    info = tmp_path / "packed-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packed\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[aiplayground.plugins]\nsmall = aipgtest_packed\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = load_plugins(allow=["small"])
    (plugin,) = found.loaded
    assert (plugin.distribution, plugin.version) == ("packed", "2.0")
    assert [spec.name for spec in plugin.backends] == ["small"]
    del sys.modules["aipgtest_packed"]
