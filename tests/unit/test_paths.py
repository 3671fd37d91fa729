from __future__ import annotations

import errno
import os
import stat
from dataclasses import fields, replace
from pathlib import Path

import pytest

from aiplayground.errors import ErrorCode, FileOperationError, InvalidParameters
from aiplayground.paths import Paths, file_error, make_folder

FOLDERS = ("config", "data", "cache", "state", "logs", "models", "runtime")


def test_every_directory_of_a_home_lies_under_it(tmp_path: Path) -> None:
    paths = Paths.resolve(tmp_path)
    places = [getattr(paths, field.name) for field in fields(paths)]
    assert all(tmp_path in place.parents for place in places)
    assert len(set(places)) == len(places)


def test_an_explicit_home_wins_over_the_variable(tmp_path: Path) -> None:
    environ = {"AIPG_HOME": str(tmp_path / "variable")}
    assert Paths.resolve(tmp_path / "given", environ).data == tmp_path / "given" / "data"
    assert Paths.resolve(None, environ).data == tmp_path / "variable" / "data"


def test_without_a_home_the_platform_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for environ in ({}, {"AIPG_HOME": ""}):
        paths = Paths.resolve(environ=environ)
        assert all(getattr(paths, name).is_absolute() for name in FOLDERS)
        assert all("aiplayground" in getattr(paths, name).parts for name in FOLDERS)


def test_the_runtime_folder_is_the_sessions_else_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert Paths.resolve(environ={}).runtime == tmp_path / "aiplayground"
    for unusable in ("", "relative", str(tmp_path / "gone")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        paths = Paths.resolve(environ={})
        assert paths.runtime == paths.state / "run"


def test_a_home_may_be_relative_or_start_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert Paths.resolve("here").config == tmp_path / "here" / "config"
    assert Paths.resolve("~/there").config == tmp_path / "there" / "config"


def test_a_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(FileOperationError, match="names a user that does not exist"):
        Paths.resolve("~no-such-user-anywhere/home")


def test_ensure_creates_everything_and_may_be_repeated(tmp_path: Path) -> None:
    paths = Paths.resolve(tmp_path / "new" / "home")
    paths.ensure()
    paths.ensure()
    assert all(getattr(paths, name).is_dir() for name in FOLDERS)
    assert not paths.system_config.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_private_folders_are_private_even_if_they_were_not(tmp_path: Path) -> None:
    paths = Paths.resolve(tmp_path)
    paths.runtime.mkdir(mode=0o755)
    paths.ensure()
    for folder in (paths.runtime, paths.state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="POSIX ownership")
def test_a_private_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(FileOperationError, match="permission is denied"):
        make_folder(tmp_path / "runtime", private=True)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    paths = Paths.resolve(tmp_path)
    paths.cache.write_text("in the way")
    with pytest.raises(FileOperationError, match="in the way") as caught:
        paths.ensure()
    assert caught.value.code is ErrorCode.FILE_OPERATION
    assert caught.value.details["path"] == str(paths.cache)
    nested = replace(paths, config=paths.cache / "below")
    with pytest.raises(FileOperationError, match="a part of the path is a file"):
        nested.ensure()


@pytest.mark.parametrize(
    ("number", "cause", "reason"),
    [
        (errno.EROFS, "the file system is read-only", None),
        (errno.EACCES, "permission is denied", None),
        (errno.ENOSPC, "the disk is full", "disk-full"),
        (errno.EDQUOT, "quota", "disk-full"),
        (errno.EIO, os.strerror(errno.EIO), None),
    ],
)
def test_causes_are_told_with_a_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    cause: str,
    reason: str | None,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(FileOperationError) as caught:
        Paths.resolve(tmp_path).ensure()
    assert cause in caught.value.message
    assert "then try again" in caught.value.message
    assert caught.value.details["errno"] == errno.errorcode[number]
    assert caught.value.details.get("reason") == reason


def test_an_os_error_without_a_number_is_still_explained(tmp_path: Path) -> None:
    error = file_error("read", tmp_path, OSError("odd"))
    assert "odd" in error.message


def test_service_places_are_apart_and_cannot_climb_out(tmp_path: Path) -> None:
    paths = Paths.resolve(tmp_path)
    assert paths.service_log("llamacpp-backend") == paths.logs / "llamacpp-backend.log"
    assert paths.service_data("a") != paths.service_data("b")
    assert paths.cache in paths.service_cache("a").parents
    assert paths.config_file.parent == paths.config
    for name in ("..", "", "a/b", "/etc/passwd", "a\\b", ".hidden", "a\n"):
        with pytest.raises(InvalidParameters, match="no service name"):
            paths.service_log(name)
