"""The table of IPC methods: complete, validated, extended by plugins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Backend, Fake, kernel

from aiplayground.errors import InvalidParameters, PluginError, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.methods import METHODS

REFERENCE = {
    "getServices": [],
    "sendStartSignal": ["serviceName"],
    "sendStopSignal": ["serviceName"],
    "setUpService": ["serviceName"],
    "ensureBackendReadiness": ["backend", "model"],
    "explainReadiness": ["backend", "model"],
    "loadModels": [],
    "refreshLLMModels": [],
    "getModelPaths": [],
    "downloadModel": ["modelInfo"],
    "checkModelExists": ["path"],
    "selectDevice": ["device"],
    "detectDevices": [],
    "showOpenDialog": ["options"],
    "showSaveDialog": ["options"],
    "saveImage": ["imageData", "filename"],
    "openImageWithSystem": ["path"],
    "miniWindow": [],
    "exitApp": [],
    "setFullScreen": ["fullscreen"],
    "comfyui:downloadCustomNode": ["nodeRepoData"],
    "comfyui:listInstalledCustomNodes": [],
    "comfyui:isCustomNodeInstalled": ["nodeRef"],
}
"""The methods of the API reference, with their parameters in order."""

BESIDES = {
    "restartService": ["serviceName"],
    "getServiceLog": ["serviceName", "lines"],
    "unloadModel": ["backend", "model"],
}
"""What is ours, and needs the token."""

STORES = {"stores:list": [], "stores:get": ["name"], "stores:call": ["name", "action", "params"]}

OPEN = {"getServices", "loadModels", "refreshLLMModels", "getModelPaths", "detectDevices"} | {
    "comfyui:listInstalledCustomNodes",
    "comfyui:isCustomNodeInstalled",
    *STORES,
    "explainReadiness",
}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, Fake()) as one:
        yield one


def test_the_table_is_the_reference() -> None:
    assert {name: each.outside_names for name, each in METHODS.items()} == (
        REFERENCE | BESIDES | STORES
    )


def test_what_lists_needs_no_token_and_nothing_else_goes_without() -> None:
    assert {name for name, each in METHODS.items() if each.is_open} == OPEN


async def test_services_have_the_documented_shape(running: Kernel) -> None:
    [service] = await running.call("getServices")
    assert service == {
        "name": "fake",
        "baseUrl": "",
        "port": 0,
        "currentStatus": "Installed",
        "isRequired": False,
        "isSetUp": True,
    }


async def test_start_and_stop_return_the_status(running: Kernel) -> None:
    assert await running.call("sendStartSignal", "fake") == "Running"
    assert await running.call("sendStopSignal", serviceName="fake") == "Stopped"
    assert await running.call("setUpService", service_name="fake") is None


async def test_readiness_loads_the_model_and_unloading_frees_it(running: Kernel) -> None:
    assert await running.call("ensureBackendReadiness", "fake", "m") is None
    assert running.service("fake").models == ("m",)
    assert await running.call("unloadModel", "fake", "m") is None
    assert running.service("fake").models == ()


async def test_a_restart_stops_and_starts(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as one:
        await one.call("sendStartSignal", "fake")
        assert await one.call("restartService", "fake") == "Running"
    assert fake.calls.count("start") == 2


async def test_a_log_is_told_line_by_line(running: Kernel) -> None:
    for number in range(3):
        running.log("fake").line("engine", f"line {number}")
    last = await running.call("getServiceLog", "fake", 2)
    assert [each["text"] for each in last] == ["line 1", "line 2"]
    assert {"seq", "time", "level", "source"} < last[0].keys()
    assert await running.call("getServiceLog", "kernel") == []
    with pytest.raises(InvalidParameters, match="lines"):
        await running.call("getServiceLog", "fake", 0)
    with pytest.raises(ServiceNotAvailable, match="Did you mean 'fake'"):
        await running.call("getServiceLog", "fak")


async def test_an_unknown_service_is_not_available(running: Kernel) -> None:
    with pytest.raises(ServiceNotAvailable, match="Did you mean 'fake'") as refused:
        await running.call("sendStartSignal", "fak")
    assert refused.value.details["services"] == ["fake"]


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("sendStartSignal", [], "serviceName"),
        ("sendStartSignal", [5], "serviceName"),
        ("sendStartSignal", {"serviceName": "fake", "modle": 1}, "modle"),
        ("setFullScreen", ["yes"], "fullscreen"),
        ("showOpenDialog", [{"titel": "x"}], "options.titel"),
        ("showOpenDialog", [{"properties": ["openAll"]}], "options.properties[0]"),
        ("comfyui:downloadCustomNode", [{"commit": "main"}], "nodeRepoData.repository"),
    ],
)
async def test_parameters_are_validated(running: Kernel, name: str, given: Any, field: str) -> None:
    positional, named = (given, {}) if isinstance(given, list) else ([], given)
    with pytest.raises(InvalidParameters) as refused:
        await running.call(name, *positional, **named)
    assert refused.value.details["field"] == field


async def test_too_many_parameters_are_refused(running: Kernel) -> None:
    with pytest.raises(InvalidParameters, match=r"takes 1 parameters \(serviceName\), not 2"):
        await running.call("sendStartSignal", "fake", "m")


async def test_an_unknown_method_is_named(running: Kernel) -> None:
    with pytest.raises(InvalidParameters, match="Did you mean 'getServices'"):
        await running.call("getService")


@pytest.mark.parametrize("name", [name for name, each in METHODS.items() if each.waits_for])
async def test_what_is_not_there_yet_says_what_to_install(running: Kernel, name: str) -> None:
    given: dict[str, list[Any]] = {
        "downloadModel": [{"repo": "r", "filename": "f", "destination": "d", "type": "llm"}],
        "comfyui:downloadCustomNode": [{"repository": "https://github.com/a/b"}],
        "comfyui:isCustomNodeInstalled": ["a/b@main"],
    }
    with pytest.raises(ServiceNotAvailable, match="pip install aiplayground-"):
        await running.call(name, *given.get(name, []))


# Plugins --------------------------------------------------------------------------------------


class Brings(Backend):
    """A plugin with methods."""

    def __init__(self, name: str, methods: Any) -> None:
        super().__init__(name)
        self.methods = methods

    @hookimpl
    def register_methods(self) -> Mapping[str, Callable[..., Any]]:
        return self.methods  # type: ignore[no-any-return]  # a test may give anything


async def shout(kernel: Kernel, source_text: str, times: int = 1) -> list[str]:
    """Say it louder."""
    return [source_text.upper()] * times


async def has_node(kernel: Kernel, node_ref: str) -> bool:
    return node_ref == "there"


async def wrong_result(kernel: Kernel) -> int:
    return "three"  # type: ignore[return-value]  # that is the point


async def anything(kernel: Kernel, *values: int) -> None:
    pass


def not_a_coroutine(kernel: Kernel) -> None:
    pass


async def test_plugins_bring_methods_and_fill_in_what_is_missing(tmp_path: Path) -> None:
    methods = {"shout": shout, "comfyui:isCustomNodeInstalled": has_node, "three": wrong_result}
    async with kernel(tmp_path, Brings("loud", methods)) as one:
        assert await one.call("shout", "a", 2) == ["A", "A"]
        assert await one.call("shout", sourceText="b") == ["B"]
        assert await one.call("comfyui:isCustomNodeInstalled", "there") is True
        assert one.methods()["comfyui:isCustomNodeInstalled"].group == "ComfyUI management"
        assert not one.methods()["shout"].is_open
        with pytest.raises(PluginError, match="loud: method 'three': its result"):
            await one.call("three")


@pytest.mark.parametrize(
    ("brought", "why"),
    [
        ({"getServices": shout}, "'getServices' is the kernel's already"),
        ({"x": not_a_coroutine}, "must be a coroutine function"),
        ({"x": anything}, "'values' must be an ordinary one"),
        (["x"], "must return a mapping"),
    ],
)
async def test_wrong_methods_are_left_out_and_logged(
    tmp_path: Path, brought: Any, why: str
) -> None:
    async with kernel(tmp_path, Brings("loud", brought), Brings("other", {"shout": shout})) as one:
        assert set(one.methods()) == {*METHODS, "shout"}
        assert [each["name"] for each in await one.call("getServices")] == ["loud", "other"]
        assert any(why in line.text for line in one.log().tail(50))


async def test_of_two_plugins_the_first_has_the_name(tmp_path: Path) -> None:
    async with kernel(
        tmp_path, Brings("one", {"shout": shout}), Brings("two", {"shout": wrong_result})
    ) as both:
        assert await both.call("shout", "a") == ["A"]
        assert any("'shout' is one's already" in line.text for line in both.log().tail(50))
