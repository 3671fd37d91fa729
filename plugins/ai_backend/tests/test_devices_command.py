"""`aipg devices`, alone and with a running kernel."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aiplayground.cli import main
from aiplayground.kernel import Kernel

from .serving import gateway


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_HOME", str(tmp_path))
    monkeypatch.setenv("AIPG_PLUGINS__ALLOW", "[]")


def test_devices_are_listed_and_chosen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["devices", "--json"]) == 0
    [*_, cpu] = json.loads(capsys.readouterr().out)["devices"]
    assert (cpu["id"], cpu["selected"]) == ("cpu", False)
    assert main(["devices", "--select", "CPU"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("*")
    assert Kernel(home=tmp_path, discover=False).paths.state.joinpath("device.json").exists()
    assert main(["devices", "--select", "auto"]) == 0
    assert "No device is chosen" in capsys.readouterr().out


def test_an_unknown_device_lists_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--select", "H100"]) == 1
    assert "cpu (" in capsys.readouterr().err


async def test_a_running_kernel_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with gateway(tmp_path) as (kernel, _):
        assert await asyncio.to_thread(main, ["devices", "--select", "cpu"]) == 0
        assert kernel.selected_device is not None
        assert kernel.selected_device.id == "cpu"
    assert "*" in capsys.readouterr().out
