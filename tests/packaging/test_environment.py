"""The scripts behind `make`: what they decide, without installing anything."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from scripts import bootstrap, install, llama_wheel

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PINNED = {line.partition("==")[0] for line in CONSTRAINTS.splitlines() if "==" in line}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(llama_wheel, "_cache", lambda: tmp_path)
    llama_wheel.folder().mkdir(parents=True)
    return llama_wheel.folder()


def failure(error: pytest.ExceptionInfo[SystemExit]) -> str:
    assert isinstance(error.value.code, str)
    return error.value.code


def test_constraints_are_names_and_versions_alone() -> None:
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert not any(name.startswith("aiplayground") for name in PINNED)


@pytest.mark.parametrize(
    "file",
    [
        "pyproject.toml",
        "plugins/llamacpp/pyproject.toml",
        "plugins/ai_backend/pyproject.toml",
        "plugins/models/pyproject.toml",
    ],
)
def test_whatever_is_needed_is_constrained(file: str) -> None:
    project = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
    needed = [
        *project["dependencies"],
        *project.get("optional-dependencies", {}).get("serving", []),
    ]
    names = {re.split(r"[^A-Za-z0-9_-]", one)[0] for one in [*needed, *install.development_tools()]}
    assert names - {"aiplayground"} <= PINNED


def test_the_engines_version_comes_from_the_constraints() -> None:
    assert llama_wheel.pinned("a==1\nllama-cpp-python==9.8.7\n") == "9.8.7"
    with pytest.raises(SystemExit) as error:
        llama_wheel.pinned("a==1\n")
    assert "Add one" in failure(error)


def test_a_wheel_of_the_users_own_lifts_its_constraint(tmp_path: Path) -> None:
    assert install.constraints(tmp_path, but=None) == ROOT / "constraints.txt"
    lifted = install.constraints(tmp_path, but="llama-cpp-python").read_text(encoding="utf-8")
    assert "llama-cpp-python" not in lifted
    assert len(lifted.splitlines()) == len(CONSTRAINTS.splitlines()) - 1


def test_the_named_wheel_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIPG_LLAMA_WHEEL", raising=False)
    assert llama_wheel.given() is None
    monkeypatch.setenv("AIPG_LLAMA_WHEEL", str(tmp_path / "x.whl"))
    with pytest.raises(SystemExit) as error:
        llama_wheel.given()
    assert "no wheel file" in failure(error)
    (tmp_path / "x.whl").touch()
    assert llama_wheel.given() == (tmp_path / "x.whl").resolve()


def test_the_cache_is_for_one_kind_of_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = llama_wheel.machine()
    assert llama_wheel.machine() == here
    monkeypatch.setattr(llama_wheel, "_processor", lambda: "another")
    other = llama_wheel.machine()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert len({here, other, llama_wheel.machine()}) == 3


def test_only_the_pinned_wheel_is_taken_from_the_cache(cache: Path) -> None:
    (cache / "llama_cpp_python-1.0-py3-none-any.whl").touch()
    assert llama_wheel.cached("1.0.1") is None
    assert llama_wheel.cached("1.0") == cache / "llama_cpp_python-1.0-py3-none-any.whl"


def test_a_wheel_enters_the_cache_whole_or_not_at_all(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(version: str, into: Path) -> bool:
        (into / f"llama_cpp_python-{version}-py3-none-any.whl").touch()
        raise KeyboardInterrupt

    def whole(version: str, into: Path) -> bool:
        (into / f"llama_cpp_python-{version}-py3-none-any.whl").touch()
        return True

    monkeypatch.setattr(llama_wheel, "_fetched", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llama_wheel.make("1.0")
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(llama_wheel, "_fetched", whole)
    assert llama_wheel.make("1.0") == llama_wheel.cached("1.0")


@pytest.mark.skipif(sys.platform == "win32", reason="CMake finds the compiler itself on Windows")
def test_missing_compilers_are_named_with_how_to_get_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.setattr(llama_wheel, "_fetched", lambda *_: False)
    with pytest.raises(SystemExit) as error:
        llama_wheel.make("1.0")
    for words in ("C++ (c++, g++ or clang++)", "build-essential", "xcode-select --install"):
        assert words in failure(error)
    for name in ("gcc", "g++"):
        (cache / name).touch(mode=0o755)
    assert llama_wheel.missing_compilers() == []


@pytest.mark.parametrize(
    ("returncode", "stderr", "words"),
    [
        (1, "Traceback\nOSError: libgomp.so.1: cannot open\n", "OSError: libgomp.so.1: cannot"),
        (-getattr(signal, "SIGILL", 4), "", "compiled for another processor"),
        (3, "", "status 3"),
    ],
)
def test_an_engine_that_does_not_load_is_explained(
    monkeypatch: pytest.MonkeyPatch, returncode: int, stderr: str, words: str
) -> None:
    done = subprocess.CompletedProcess[str]([], returncode, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    problem = llama_wheel.problem(Path("x.whl"))
    assert problem is not None
    assert words in problem
    assert "rm 'x.whl'" in problem


def test_a_python_that_is_too_old_or_does_not_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.find_python() == sys.executable
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert bootstrap.find_python() is None
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    with pytest.raises(SystemExit) as error:
        bootstrap.make_venv(uv=None)
    assert "needs Python 3.11, 3.12 or 3.13" in failure(error)


def test_a_folder_that_is_no_environment_is_never_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "VENV", venv)
    bootstrap.remove_venv()
    venv.mkdir()
    (venv / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as error:
        bootstrap.remove_venv()
    assert "Move it away" in failure(error)
    (venv / "pyvenv.cfg").touch()
    bootstrap.remove_venv()
    assert not venv.exists()


def test_bootstrap_can_be_read_by_an_old_python() -> None:
    source = (ROOT / "scripts" / "bootstrap.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = {alias.name for node in imports for alias in node.names}
    assert imported == {"os", "shutil", "subprocess", "sys"}
