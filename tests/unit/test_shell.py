"""The window: asked where there is one, and missed in plain words where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Backend, kernel

from aiplayground.errors import InvalidParameters, PluginError, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel


class Window:
    """A shell that notes what it was asked for."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel
        self.asked: list[Any] = []

    async def show_open_dialog(self, options: Mapping[str, Any]) -> list[str] | None:
        self.asked.append(options)
        return ["/a.png"] if options else None

    async def set_full_screen(self, fullscreen: bool) -> None:
        self.asked.append(fullscreen)

    async def exit_app(self) -> None:
        raise ValueError("no")


class Brings(Backend):
    """A plugin that names a shell."""

    def __init__(self, reference: str | None) -> None:
        super().__init__("window")
        self.reference = reference

    @hookimpl
    def register_shell(self) -> str | None:
        return self.reference


WINDOW = [
    ("showOpenDialog", []),
    ("showSaveDialog", [{"title": "Save"}]),
    ("miniWindow", []),
    ("exitApp", []),
    ("setFullScreen", [True]),
]


@pytest.mark.parametrize(("name", "given"), WINDOW)
async def test_without_a_shell_they_say_so(tmp_path: Path, name: str, given: list[Any]) -> None:
    async with kernel(tmp_path, Brings(None)) as one:
        with pytest.raises(ServiceNotAvailable, match="needs the program's window") as refused:
            await one.call(name, *given)
    assert refused.value.details == {"reason": "no-shell"}


async def test_a_shell_that_attached_itself_is_asked(tmp_path: Path) -> None:
    window = Window()
    async with kernel(tmp_path) as one:
        detach = one.attach_shell(window)
        options = {"title": "T", "defaultPath": "/p", "properties": ["openFile"]}
        assert await one.call("showOpenDialog", options) == ["/a.png"]
        assert await one.call("showOpenDialog") is None
        assert await one.call("setFullScreen", True) is None
        assert window.asked == [options, {}, True]
        with pytest.raises(ServiceNotAvailable):
            await one.call("miniWindow")
        with pytest.raises(PluginError, match="ValueError"):
            await one.call("exitApp")
        with pytest.raises(InvalidParameters):
            await one.call("setFullScreen", 1)
        detach()
        with pytest.raises(ServiceNotAvailable):
            await one.call("setFullScreen", True)


async def test_a_plugin_names_its_shell(tmp_path: Path) -> None:
    async with kernel(tmp_path, Brings("tests.unit.test_shell:Window")) as one:
        assert await one.call("showOpenDialog", {"title": "T"}) == ["/a.png"]


async def test_a_shell_that_cannot_be_made_is_logged(tmp_path: Path) -> None:
    async with kernel(tmp_path, Brings("tests.nowhere:Window")) as one:
        with pytest.raises(ServiceNotAvailable):
            await one.call("miniWindow")
        assert any("its shell 'tests.nowhere:Window'" in line.text for line in one.log().tail(20))


async def test_a_window_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        async def mini_window(self) -> None:
            await asyncio.Event().wait()

    async with kernel(tmp_path) as one:
        one.attach_shell(Stuck())
        with pytest.raises(ServiceNotAvailable, match="did not answer"):
            await one.shells.ask("mini_window", patience=0.01)
