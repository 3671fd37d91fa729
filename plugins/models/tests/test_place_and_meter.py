"""Where files go, and how speed and time are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiplayground.errors import FileOperationError, InvalidParameters
from aiplayground.models import ModelPaths
from aiplayground.paths import Paths
from aiplayground.settings import KernelSettings
from aiplayground_models.meter import Meter, eta_text, percent, speed_text
from aiplayground_models.place import base_of, destination, inside


@pytest.fixture
def paths(tmp_path: Path) -> ModelPaths:
    settings = KernelSettings.model_validate(
        {"models": {"paths": {"lora": tmp_path / "elsewhere"}}}
    )
    return ModelPaths.of(Paths.resolve(tmp_path / "home"), settings.models, {})


def test_a_destination_is_below_our_folders(paths: ModelPaths, tmp_path: Path) -> None:
    root = paths.root
    assert destination(paths, "", "o/r", "llm") == root / "llm" / "o" / "r"
    assert destination(paths, "llm/mistral-7b", "o/r", "llm") == root / "llm" / "mistral-7b"
    assert destination(paths, "mine\\new", "o/r", "llm") == root / "mine" / "new"
    assert destination(paths, str(root / "x"), "o/r", "llm") == root / "x"
    lora = destination(paths, "lora/style", "o/r", "lora")
    assert lora == tmp_path / "elsewhere" / "style"
    assert base_of(paths, lora) == tmp_path / "elsewhere"
    assert base_of(paths, root / "llm" / "x") == root


@pytest.mark.parametrize(
    "text", ["../x", "/etc", "llm/../../x", "a\x00b", ".hidden/x", "llm/out/y"]
)
def test_what_leads_out_is_refused(paths: ModelPaths, tmp_path: Path, text: str) -> None:
    (paths.root / "llm").mkdir(parents=True)
    (paths.root / "llm" / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidParameters, match="does not lie below"):
        destination(paths, text, "o/r", "llm")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", ".x/y", "a\\b", "c:x", "nul.gguf", "", "a\nb"]
)
def test_a_repositorys_file_names_are_not_trusted(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileOperationError, match="not safe"):
        inside(tmp_path, name)
    assert inside(tmp_path, "BF16/m.gguf") == tmp_path / "BF16" / "m.gguf"


def test_speed_and_time() -> None:
    meter = Meter()
    assert (meter.speed, meter.eta(10)) == (None, None)
    meter.add(0.0, 1000)
    meter.add(2.0, 25_001_000)
    assert meter.speed == 12.5e6
    assert meter.eta(50_001_000) == 2.0
    meter.add(3.0, 0)  # the server began anew
    assert meter.speed is None
    assert [speed_text(each) for each in (None, 12.5e6, 3e9, 1500, 7)] == [
        None, "12.5 MB/s", "3.0 GB/s", "1.5 kB/s", "7 B/s"
    ]  # fmt: skip
    assert [eta_text(each) for each in (None, 0.2, 12, 150, 3900)] == [
        None, "0 s", "12 s", "2 min 30 s", "1 h 05 min"
    ]  # fmt: skip
    assert [percent(1, None), percent(45, 100), percent(100, 100)] == [0.0, 45.0, 99.9]
