"""Our wheels, built without an index, and environments that see nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = {
    "aiplayground": ROOT,
    "aiplayground_llamacpp": ROOT / "plugins/llamacpp",
    "aiplayground_guide": ROOT / "plugins/guide",
    "aiplayground_ai_backend": ROOT / "plugins/ai_backend",
    "aiplayground_models": ROOT / "plugins/models",
}
MANIFESTS = find_spec("aiplayground.manifest") is not None
"""Whether this kernel reads backends without Python."""
LONGEST = 250
"""Seconds after which a command in a clean environment counts as hung."""
HERE_HAS_PIP = find_spec("pip") is not None
KIT = find_spec("aiplayground.testing") is not None
"""Whether this kernel has the conformance kit: packages are then held to it."""


def build_wheel(project: Path, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        check=True,
        capture_output=True,
        timeout=100,
    )


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    for project in PROJECTS.values():
        build_wheel(project, folder)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is installed here, our own distributions excepted."""
    folder = tmp_path_factory.mktemp("dependencies")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            ours = entry.name.startswith(("aiplayground", "__editable__", "_aiplayground"))
            if not ours and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pip that installs into other environments: bringing one into each takes seconds."""
    if HERE_HAS_PIP:
        return [sys.executable, "-m", "pip"]
    folder = tmp_path_factory.mktemp("pip")
    venv.create(folder, with_pip=True)
    return [str(folder / "bin" / "python"), "-m", "pip"]


class CleanEnvironment:
    """A new virtual environment: wheels are installed with pip, without an index.

    What our distributions depend on is seen through a link, as if it had been installed before.
    """

    def __init__(self, folder: Path, dependencies: Path, pip: list[str]) -> None:
        self.home = folder / "home"
        self._folder = folder / "environment"
        self._pip = [*pip, "--python", str(self.python)]
        venv.create(self._folder)
        (self.site / "dependencies.pth").write_text(f"{dependencies}\n")

    @property
    def python(self) -> Path:
        return self._folder / "bin" / "python"

    @property
    def site(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self._folder / "lib" / version / "site-packages"

    def install(self, *wheels: Path) -> None:
        """Install wheels; what they require must be there."""
        options = ["--no-index", "--disable-pip-version-check", "--quiet"]
        self._checked([*self._pip, "install", *options, *map(str, wheels)])

    def aipg(self, *arguments: str) -> str:
        """Run the installed command and return what it printed."""
        return self._checked([str(self.python.with_name("aipg")), *arguments])

    def passes(self, tests: Path) -> None:
        """Run a package's own tests; they must pass."""
        argv = [str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        argv += ["-p", "no:schemathesis", str(tests)]  # it takes long to load
        assert "passed" in self._checked(argv)

    def _checked(self, argv: list[str]) -> str:
        done = self._run(argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        return subprocess.run(
            argv,
            cwd=self._folder,
            env={**kept, "HOME": str(self.home), "AIPG_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )


@pytest.fixture
def clean(
    tmp_path: Path, dependencies: Path, wheels: dict[str, Path], pip: list[str]
) -> CleanEnvironment:
    """An environment with the kernel alone."""
    environment = CleanEnvironment(tmp_path, dependencies, pip)
    environment.install(wheels["aiplayground"])
    return environment


@pytest.fixture
def build(tmp_path: Path) -> Callable[[Path], Path]:
    """Builds the wheel of a project, as `pip wheel` does."""

    def build(project: Path) -> Path:
        dist = tmp_path / "dist"
        build_wheel(project, dist)
        (wheel,) = dist.glob("*.whl")
        return wheel

    return build
