"""`aipg models` and its commands, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import model_files as files
from tests.gguf_files import Gguf, write_split

from aiplayground.cli import main


class Cli:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = main(["--home", str(self.home), "models", *words])
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def json(self, *words: str) -> Any:
        code, out, _ = self(*words, "--json")
        assert code == 0, out
        return json.loads(out)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("AIPG_PLUGINS__ALLOW", "[]")
    return Cli(tmp_path, capsys)


def test_every_format_is_listed_with_where_it_lies(cli: Cli) -> None:
    Gguf().write(cli.home / "models" / "llm" / "a-Q4_0.gguf")
    files.safetensors(cli.home / "models" / "loras" / "style.safetensors")
    code, out, _ = cli()
    assert code == 0
    head, first, second = out.splitlines()
    assert head.split() == ["MODEL", "TYPE", "SIZE", "QUANTIZATION", "CONTEXT", "BACKEND", "WHERE"]
    assert first.split()[:2] == ["a-Q4_0", "llm"]
    assert first.split()[-2:] == ["128", "models/llm"]
    assert second.split()[-1] == "models/loras"
    listed = cli.json()
    assert [each["name"] for each in listed["models"]] == ["a-Q4_0", "style"]
    assert listed["models"][1]["format"] == "safetensors"


def test_one_model_is_shown(cli: Cli) -> None:
    path = Gguf().write(cli.home / "models" / "a.gguf")
    code, out, _ = cli("info", "A.gguf")
    assert code == 0
    told = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split()) > 1)
    assert told["name"] == "a"
    assert told["context"] == "128 tokens"
    assert told["files"] == str(path)
    assert "frees" in told["removal"]
    assert cli.json("info", "a")["removable"] is True


def test_typing_mistakes_get_suggestions(cli: Cli) -> None:
    Gguf().write(cli.home / "models" / "mistral.gguf")
    for word in ("info", "rm"):
        code, _, err = cli(word, "mistrla")
        assert code == 1
        assert "Did you mean 'mistral'?" in err
    code, _, err = cli("inf", "mistral")
    assert code == 2
    assert "Did you mean 'info'?" in err


def test_removal_says_what_goes_and_asks(cli: Cli) -> None:
    parts = write_split(cli.home / "models" / "llm", "big", 2)
    code, out, err = cli("rm", "big")
    assert code == 2
    assert all(str(path) in out for path in parts)
    assert "--yes" in err
    assert all(path.exists() for path in parts)
    assert cli("rm", "big", "--json")[0] == 2
    code, out, _ = cli("rm", "big", "--yes")
    assert (code, out.split(".")[0]) == (0, "big is removed")
    assert not any(path.exists() for path in parts)


def test_a_person_who_says_no_keeps_the_model(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Gguf().write(cli.home / "models" / "a.gguf")
    monkeypatch.setattr("aiplayground.cli._model_removal.is_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert cli("rm", "a")[:2][1].endswith("Nothing was removed.\n")
    assert path.exists()
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    assert cli("rm", "a")[0] == 0
    assert not path.exists()


def test_what_is_only_read_stays(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Gguf().write(cli.home / "theirs" / "a.gguf")
    monkeypatch.setenv("AIPG_MODELS__FOLDERS", json.dumps([str(path.parent)]))
    code, _, err = cli("rm", "a", "--yes")
    assert code == 1
    assert "only read" in err
    assert path.exists()
    assert "only read" in cli("info", "a")[1]


def test_the_folders_are_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_MODELS__PATHS__LORA", str(cli.home / "elsewhere"))
    found = cli.json("paths")
    assert found["root"] == str(cli.home / "models")
    assert found["folders"]["lora"] == str(cli.home / "elsewhere")
    out = cli("paths")[1]
    assert "environment variable AIPG_MODELS__PATHS__LORA" in out
