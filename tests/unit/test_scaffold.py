"""`aipg plugin new`: names that work, and folders that are whole or as they were."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from aiplayground import __version__, _scaffold
from aiplayground._scaffold import (
    FILES,
    Kind,
    checked_name,
    compatible,
    package_of,
    render,
    write_package,
)
from aiplayground.cli import main
from aiplayground.errors import FileOperationError, InvalidParameters
from aiplayground.hookspecs import ENTRY_POINT_GROUP


@pytest.mark.parametrize(
    ("name", "normal"),
    [("my-backend", "my-backend"), ("My_Backend", "my-backend"), ("a.-_b2", "a-b2"), ("x", "x")],
)
def test_names_are_spelled_as_packages_are(name: str, normal: str) -> None:
    assert checked_name(name) == normal
    assert package_of(normal).isidentifier()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "for instance my-backend"),
        ("2fast", "beginning with a letter"),
        ("-x", "beginning with a letter"),
        ("x-", "beginning with a letter"),
        ("bäckend", "a to z"),
        ("a b", "a to z"),
        ("../up", "a to z"),
        ("x" * 65, "at most 64"),
        ("class", "means something in Python"),
        ("json", "for instance my-json"),
        ("aiplayground", "there is a module 'aiplayground'"),
        ("pydantic", "there is a module 'pydantic'"),
        ("taken", "a plugin of this name is installed"),
    ],
)
def test_names_that_cannot_work_are_refused(name: str, why: str) -> None:
    with pytest.raises(InvalidParameters, match="cannot be the name of a plugin") as caught:
        checked_name(name, taken=["taken"])
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("version", "range_"),
    [("0.1.0", ">=0.1,<0.2"), ("0.12.3", ">=0.12,<0.13"), ("2.5.1", ">=2.5,<3")],
)
def test_the_range_of_kernels(version: str, range_: str) -> None:
    assert compatible(version) == range_


@pytest.mark.parametrize("kind", Kind)
def test_every_template_is_used_and_filled_in(kind: Kind) -> None:
    folder = Path(_scaffold.__file__).parent / "templates" / kind.value
    assert {f"{name}.tmpl" for name in FILES[kind]} == {each.name for each in folder.iterdir()}
    texts = render("my-backend", kind)
    assert not any("$" in text for text in [*texts, *texts.values()])
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    assert project["name"] == "my-backend"
    assert all(compatible(__version__) in each for each in project["dependencies"])
    (entry,) = project["entry-points"][ENTRY_POINT_GROUP].items()
    assert entry[0] == "my-backend"
    assert entry[1].partition(".")[0] == "my_backend"
    for name, text in texts.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_it_writes_a_folder_with_the_plugins_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = write_package("My.Backend", None, kind=Kind.PYTHON)
    assert package.folder == tmp_path / "my-backend"
    written = {each for each in package.folder.rglob("*") if each.is_file()}
    assert written == {package.folder / each for each in package.files}
    assert [each.name for each in tmp_path.iterdir()] == ["my-backend"]


def test_a_folder_that_is_empty_will_do_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        write_package("x-y", folder, kind=Kind.PYTHON)
        assert (folder / "src/x_y/plugin.py").is_file()
    with pytest.raises(FileOperationError, match="not empty"):
        write_package("x-y", tmp_path / "empty", kind=Kind.PYTHON)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileOperationError, match="is a file"):
        write_package("x-y", tmp_path / "file", kind=Kind.PYTHON)
    with pytest.raises(FileOperationError, match="write the plugin's files"):
        write_package("x-y", tmp_path / "file" / "below", kind=Kind.PYTHON)


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_nothing_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool, error: BaseException
) -> None:
    folder = tmp_path / "project"
    if existed:
        folder.mkdir()
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "src":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises((FileOperationError, KeyboardInterrupt)):
        write_package("x-y", folder, kind=Kind.PYTHON)
    assert [each.name for each in tmp_path.rglob("*")] == (["project"] if existed else [])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    target = ["--directory", str(tmp_path / "p")]
    assert main([*home, "plugin", "new", "my-backend", *target]) == 0
    out = capsys.readouterr().out
    assert f"my-backend is in {tmp_path / 'p'}" in out
    assert "aipg chat -m my-backend-echo Hello" in out
    assert main([*home, "plugin", "new", "my-backend", *target]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*home, "plugin", "new", "llamacpp-backend", "--json"]) == 1
    assert "is installed" in json.loads(capsys.readouterr().out)["message"]
    target[1] += "2"
    assert main([*home, "plugin", "new", "other", "--json", *target]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["plugin"] == "other"
    assert "src/other/plugin.py" in written["files"]
