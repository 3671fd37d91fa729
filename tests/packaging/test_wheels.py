"""What a packager gets: wheels with the right content, and subsets that work on their own.

The wheels are built without an index and unpacked beside links to the installed dependencies, so
that neither the checkout nor a plugin which is not part of the subset can be seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from tests.packaging.conftest import PROJECTS

RUN = """
import sys
from aiplayground.cli import main
sys.argv = ["aipg", *sys.argv[1:]]
sys.exit(main())
"""


class Subset:
    """Some of our distributions, installed on their own."""

    def __init__(self, folder: Path, dependencies: Path, wheels: list[Path]) -> None:
        self.folder = folder / "site"
        self.home = folder / "home"
        self.dependencies = dependencies
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self.folder)

    def aipg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = f"{self.folder}:{self.dependencies}"
        return subprocess.run(
            [sys.executable, "-S", "-c", RUN, "--home", str(self.home), *arguments],
            env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def subset(tmp_path: Path, dependencies: Path, wheels: dict[str, Path]) -> object:
    return lambda *names: Subset(tmp_path, dependencies, [wheels[name] for name in names])


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_is_typed_and_holds_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        files = archive.namelist()
    assert f"{name}/py.typed" in files
    assert all(file.startswith((f"{name}/", f"{name}-")) for file in files)
    assert not any("test" in Path(file).name for file in files)


def test_guide_wheel_carries_the_model(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["aiplayground_guide"]) as archive:
        assert 0 < archive.getinfo("aiplayground_guide/guide.gguf").file_size < 2_000_000


@pytest.mark.parametrize(
    "name",
    [
        "aiplayground_llamacpp",
        "aiplayground_guide",
        "aiplayground_ai_backend",
        "aiplayground_models",
    ],
)
def test_plugins_declare_a_range_of_kernels(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        metadata = next(f for f in archive.namelist() if f.endswith("dist-info/METADATA"))
        headers = Parser().parsestr(archive.read(metadata).decode())
    needs = [each for each in headers.get_all("Requires-Dist") or [] if "aiplayground" in each]
    assert len(needs) == 1
    assert "<0.2" in needs[0]
    assert ">=0.1" in needs[0]


def test_kernel_alone_works_and_says_what_is_missing(subset: object) -> None:
    kernel = subset("aiplayground")  # type: ignore[operator]  # a fixture that makes one
    assert kernel.aipg("--version").returncode == 0
    plugins = json.loads(kernel.aipg("plugins", "--json").stdout)
    assert plugins["plugins"] == []
    refused = kernel.aipg("chat", "Hello")
    assert refused.returncode == 1
    assert "aiplayground-" in refused.stderr


def test_kernel_with_a_model_pack_only_says_what_is_missing(subset: object) -> None:
    pack = subset("aiplayground", "aiplayground_guide")  # type: ignore[operator]  # as above
    refused = pack.aipg("chat", "-m", "guide", "Hello")
    assert refused.returncode == 1
    assert "aiplayground-llamacpp" in refused.stderr


@pytest.mark.engine
def test_kernel_with_engine_and_model_answers(subset: object) -> None:
    everything = subset(*PROJECTS)  # type: ignore[operator]  # as above
    answer = everything.aipg("chat", "-m", "guide", "What is AI Playground?")
    assert answer.returncode == 0, answer.stderr
    assert "your own computer" in answer.stdout
