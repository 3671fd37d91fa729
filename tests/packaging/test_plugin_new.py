"""What `aipg plugin new` writes builds, installs, answers, and passes the conformance kit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.packaging.conftest import KIT, MANIFESTS, ROOT, CleanEnvironment

from aiplayground._scaffold import Kind, write_package

NEEDS_MANIFESTS = pytest.mark.skipif(not MANIFESTS, reason="this kernel reads no manifests")


@pytest.fixture(params=[Kind.PYTHON, pytest.param(Kind.MANIFEST, marks=NEEDS_MANIFESTS)])
def project(request: pytest.FixtureRequest, tmp_path: Path, clean: CleanEnvironment) -> Path:
    """What the installed command writes: its templates come out of the wheel."""
    folder = tmp_path / "project"
    options = ["--manifest"] if request.param is Kind.MANIFEST else []
    told = clean.aipg("plugin", "new", "my-backend", *options, "--directory", str(folder))
    assert f"pip install -e '{folder}[test]'" in told
    return folder


def test_it_builds_installs_and_answers(
    project: Path, build: Callable[[Path], Path], clean: CleanEnvironment
) -> None:
    clean.install(build(project))
    (plugin,) = json.loads(clean.aipg("plugins", "--json"))["plugins"]
    assert (plugin["name"], plugin["version"]) == ("my-backend", "0.1.0")
    assert plugin["services"] == ["my-backend"]
    answer = clean.aipg("chat", "-m", "my-backend-echo", "Pieces of eight")
    assert answer.strip() == "Pieces of eight"


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(not KIT, reason="this kernel has no conformance kit")
def test_it_passes_the_conformance_kit_as_generated(
    project: Path, build: Callable[[Path], Path], clean: CleanEnvironment
) -> None:
    clean.install(build(project))
    clean.passes(project)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_generated_is_typed_and_formatted(tmp_path: Path, kind: Kind) -> None:
    project = write_package("my-backend", tmp_path / "project", kind=kind).folder
    for command in (
        ["mypy", "--strict", "--config-file", "/dev/null", "src"],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), "."],
        ["ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), "."],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
