from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from tests.cli_fakes import environment
from tests.keyrings import (
    FailingKeyring,
    HangingKeyring,
    MemoryKeyring,
    UselessKeyring,
    using,
)

from aiplayground import Kernel
from aiplayground.cli import main
from aiplayground.errors import (
    AIPlaygroundError,
    FileOperationError,
    InvalidParameters,
    ServiceNotAvailable,
)
from aiplayground.paths import Paths
from aiplayground.secrets import API_KEY, HF_TOKEN, Secrets, write_private

SECRET = "a-secret-that-nobody-else-knows"


def make(home: Path, environ: Mapping[str, str] | None = None, deadline: float = 20) -> Secrets:
    return Secrets(Paths.resolve(home), environ or {}, deadline=deadline)


def file_of(home: Path, name: str = "x") -> Path:
    return home / "state" / "secrets" / name


def test_a_keyring_keeps_what_it_is_given_and_no_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryKeyring()
    with using(backend, monkeypatch):
        kept = make(tmp_path)
        assert kept.get("x") is None
        assert kept.where("x") is None
        assert backend.asked == []  # it is not asked for what it does not hold
        kept.set("x", f" {SECRET}\n")
        assert make(tmp_path).get("x") == SECRET
        place = make(tmp_path).where("x")
        assert place is not None
        assert place.startswith("the keyring (")
        for each in tmp_path.rglob("*"):
            assert each.is_dir() or SECRET not in each.read_text()
        assert [name for _, name in backend.kept] == ["x"]
        kept.clear("x")
        assert backend.kept == {}
        assert kept.get("x") is None
        kept.clear("x")


def test_two_homes_do_not_share_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with using(MemoryKeyring(), monkeypatch):
        first, second = make(tmp_path / "1"), make(tmp_path / "2")
        first.set("x", "one")
        second.set("x", "two")
        assert (first.get("x"), second.get("x")) == ("one", "two")


class EmptyChain(chainer.ChainerBackend):
    """A chain of none: its own priority says that it is of no use."""

    backends: Any = ()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated there


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring, EmptyChain, UselessKeyring])
def test_without_a_usable_keyring_a_private_file_keeps_it(
    backend: type[KeyringBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with using(backend(), monkeypatch):
        kept = make(tmp_path)
        kept.set("x", SECRET)
        assert kept.problem == "there is none on this system"
        file = file_of(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert make(tmp_path).get("x") == SECRET
        assert kept.where("x") == str(file)
        kept.clear("x")
        assert kept.get("x") is None
        assert list(file.parent.iterdir()) == []


def test_a_keyring_that_hangs_is_given_up_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HangingKeyring()
    with using(backend, monkeypatch):
        kept = make(tmp_path, deadline=0.05)
        kept.set("x", SECRET)
        assert kept.problem == "it did not answer within 0.05 s"
        assert kept.where("x") == str(file_of(tmp_path))
        kept.set("x", "newer")
        assert kept.problem == "it still has not answered an earlier question"
        # It may yet keep the first one: forgetting must not leave it there unseen.
        with pytest.raises(ServiceNotAvailable, match="Unlock it and try again"):
            kept.clear("x")
        assert kept.get("x") is None
        backend.unlock()
        patient = make(tmp_path)
        patient.clear("x")
        assert not [value for value in backend.kept.values() if value != SECRET]
        assert patient.get("x") is None


def test_what_a_file_holds_is_newer_than_what_a_keyring_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, hanging = MemoryKeyring(), HangingKeyring()
    hanging.kept = backend.kept
    with using(backend, monkeypatch):
        make(tmp_path).set("x", "old")
    with using(hanging, monkeypatch):
        make(tmp_path, deadline=0.05).set("x", "new")
    with using(backend, monkeypatch):
        assert make(tmp_path).get("x") == "new"
        make(tmp_path).set("x", "newest")
        assert not file_of(tmp_path).exists()
        assert make(tmp_path).get("x") == "newest"
    hanging.unlock()


def test_a_secret_out_of_reach_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryKeyring()
    with using(backend, monkeypatch):
        make(tmp_path).set("x", SECRET)
    with using(FailingKeyring(), monkeypatch):
        kept = make(tmp_path)
        assert kept.get("x") is None
        assert kept.where("x") == ("the keyring, which cannot be used now: it failed with OSError")
        with pytest.raises(ServiceNotAvailable, match="the secret 'x' and cannot be used now"):
            kept.get("x", strict=True)
        assert kept.get("y", strict=True) is None


def test_a_keyring_that_fails_tells_nobody_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with using(FailingKeyring(), monkeypatch):
        kept = make(tmp_path)
        kept.set("x", SECRET)
        assert kept.problem == "it failed with OSError"
        assert kept.get("x") == SECRET
        assert SECRET not in f"{kept!r} {vars(kept)['_keyring']!r} {kept._find('x')!r}"
    assert SECRET not in caplog.text


def test_the_environment_wins_for_hugging_face_alone(tmp_path: Path) -> None:
    environ = {"HF_TOKEN": " from-outside ", "API_KEY": "no", "X": "no"}
    kept = make(tmp_path, environ)
    kept.set(HF_TOKEN, "kept")
    assert kept.get(HF_TOKEN) == "from-outside"
    assert kept.where(HF_TOKEN) == "the environment variable HF_TOKEN"
    assert kept.get(API_KEY) is None
    assert make(tmp_path, {"HF_TOKEN": ""}).get(HF_TOKEN) == "kept"


@pytest.mark.parametrize("value", ["", "  ", "two\nlines", "null\0", "tab\tbed"])
def test_what_is_no_line_of_text_is_no_secret(value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match="A secret is one line of text") as caught:
        make(tmp_path).set("x", value)
    assert not value.strip() or value not in str(caught.value.to_dict())


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x.keyring", "-x", "x\n"])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    kept = make(tmp_path)
    for call in (kept.get, kept.where, kept.clear, lambda each: kept.set(each, SECRET)):
        with pytest.raises(InvalidParameters, match="is no name of a secret"):
            call(name)


def test_a_file_that_is_no_text_is_reported_without_its_bytes(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff" + SECRET.encode())
    with pytest.raises(AIPlaygroundError, match="is not text") as caught:
        make(tmp_path).get("x")
    assert SECRET not in repr(caught.value.to_dict())
    assert caught.value.__suppress_context__


def test_a_private_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "private" / "x"
    write_private(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileOperationError, match="the disk is full"):
        write_private(file, "new")
    assert [each.name for each in file.parent.iterdir()] == ["x"]
    assert file.read_text() == "old"


async def test_a_kernels_logs_hide_what_it_was_told(tmp_path: Path) -> None:
    async with Kernel(home=tmp_path, discover=False, environ={}) as kernel:
        kernel.secrets.set("x", SECRET)
        kernel.log().logger.warning("It is %s, is it not?", SECRET)
        lines = "\n".join(line.text for line in kernel.log().tail())
    assert "It is [hidden], is it not?" in lines


# The command ----------------------------------------------------------------------------------


def aipg(home: Path, *args: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiplayground.cli", "config", "api-key", *args],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
        check=False,
    )


def test_a_key_that_is_piped_in_is_kept_and_not_shown(tmp_path: Path) -> None:
    done = aipg(tmp_path, given=f"{SECRET}\n")
    file = file_of(tmp_path, API_KEY)
    assert done.stdout == f"The API key is in {file}.\n"
    assert "The system's keyring is not used: there is none on this system." in done.stderr
    assert file.read_text() == SECRET
    assert SECRET not in done.stdout + done.stderr
    assert aipg(tmp_path, "--show").stdout == f"{SECRET}\n"
    shown = json.loads(aipg(tmp_path, "--where", "--json").stdout)
    assert shown == {"name": "api-key", "where": str(file)}
    assert aipg(tmp_path, "--clear").stdout == "There is no API key.\n"
    missing = aipg(tmp_path, "--show")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "There is no API key." in missing.stderr


def test_an_empty_line_makes_a_key(tmp_path: Path) -> None:
    assert aipg(tmp_path, given="\n").returncode == 0
    first = aipg(tmp_path, "--show").stdout.strip()
    assert len(first) >= 40
    assert aipg(tmp_path, given="\n").returncode == 0
    assert aipg(tmp_path, "--show").stdout.strip() != first


@pytest.mark.parametrize("key", ["short", "with a space in it, and long", "nicht-ASCII-süß-ß-ß-ß"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str, tmp_path: Path) -> None:
    done = aipg(tmp_path, given=f"{key}\n")
    assert done.returncode == 2
    assert "This is no API key" in done.stderr
    assert key not in done.stderr
    assert not file_of(tmp_path, API_KEY).exists()


def test_one_thing_at_a_time(tmp_path: Path) -> None:
    done = aipg(tmp_path, "--clear", "--show")
    assert done.returncode == 2
    assert "Choose one of" in done.stderr


def test_a_person_is_asked_without_an_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = MemoryKeyring()
    asked: list[str] = []
    monkeypatch.setenv("AIPG_HOME", str(tmp_path))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def type_it(prompt: str) -> str:
        asked.append(prompt)
        return SECRET

    monkeypatch.setattr("click.termui.hidden_prompt_func", type_it)
    with using(backend, monkeypatch):
        assert main(["config", "api-key"]) == 0
    printed = capsys.readouterr()
    assert list(backend.kept.values()) == [SECRET]
    assert len(asked) == 1
    assert "The API key is in the keyring (" in printed.out
    assert SECRET not in printed.out + printed.err


def test_the_keyring_of_whoever_runs_the_tests_is_left_alone() -> None:
    assert isinstance(keyring.get_keyring(), fail.Keyring)
